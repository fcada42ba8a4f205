"use strict";
// Reads openapi.json and writes it down as a page; every text goes in as text, never as HTML.

const $ = (id) => document.getElementById(id);
const METHODS = ["get", "post", "put", "patch", "delete"];
let api;

function make(kind, told = {}, ...inside) {
  const made = Object.assign(document.createElement(kind), told);
  made.append(...inside.filter((one) => one !== null && one !== undefined));
  return made;
}

// Words with `code` in them.
function prose(text = "") {
  return text.split("`").map((part, i) => i % 2 ? make("code", { textContent: part }) : part);
}

function sentences(...parts) {
  return prose(parts.filter(Boolean).map((part) => part.replace(/\.$/, "")).join(". "));
}

function resolve(part) {
  return part && part.$ref ? { ...part.$ref.slice(2).split("/").reduce((at, step) => at[step], api), ...part, $ref: undefined } : part;
}

// ---- JSON with the digits that came: it is indented as text, for JSON.parse would round them
function pretty(text) {
  try { JSON.parse(text); } catch { return text; }
  let depth = 0;
  const line = () => "\n" + "  ".repeat(depth);
  return (text.match(/"(?:[^"\\]|\\.)*"|[^\s"{}[\],:]+|[{}[\],:]/g) || []).map((token, i, all) => {
    const next = all[i + 1];
    if (token === "{" || token === "[") {
      if (next === "}" || next === "]") return token;
      depth++;
      return token + line();
    }
    if (token === "}" || token === "]") {
      if (all[i - 1] === "{" || all[i - 1] === "[") return token;
      depth--;
      return line() + token;
    }
    return token === "," ? "," + line() : token === ":" ? ": " : token;
  }).join("");
}

// ---- schemas
function bounds(s) {
  const told = [];
  if (s.const !== undefined) told.push("always " + JSON.stringify(s.const));
  if (s.enum) told.push("one of " + s.enum.map((one) => JSON.stringify(one)).join(" "));
  if (s.format) told.push(s.format);
  if (s.minimum !== undefined) told.push("≥ " + s.minimum);
  if (s.exclusiveMinimum !== undefined) told.push("> " + s.exclusiveMinimum);
  if (s.maximum !== undefined) told.push("≤ " + s.maximum);
  if (s.exclusiveMaximum !== undefined) told.push("< " + s.exclusiveMaximum);
  if (s.minLength) told.push("at least " + s.minLength + " long");
  if (s.maxLength) told.push("at most " + s.maxLength + " long");
  if (s.minItems) told.push("at least " + s.minItems);
  if (s.maxItems) told.push("at most " + s.maxItems);
  if (s.default !== undefined && s.default !== null) told.push("default " + JSON.stringify(s.default));
  return told.join(", ");
}

// The schema as an outline; of those that have a name the name, which goes into `used`.
function outline(s, used, indent = "") {
  if (s.$ref) { used.add(s.$ref.split("/").pop()); return s.$ref.split("/").pop(); }
  const deeper = indent + "  ", choices = s.anyOf || s.oneOf;
  if (s.properties) {
    const lines = Object.entries(s.properties).map(([member, told]) => {
      const about = [bounds(told), told.description].filter(Boolean).join(". ");
      const optional = (s.required || []).includes(member) ? "" : "?";
      return deeper + member + optional + ": " + outline(told, used, deeper) + (about ? "   — " + about : "");
    });
    for (const [names, told] of Object.entries(s.patternProperties || {})) lines.push(deeper + (told.title || names) + ": " + outline(told, used, deeper));
    if (s.additionalProperties === true) lines.push(deeper + "… any others");
    return "{\n" + lines.join("\n") + "\n" + indent + "}";
  }
  if (choices) return choices.map((one) => outline(one, used, indent)).join(" | ");
  const kinds = [].concat(s.type || "any");
  return kinds.map((kind) => kind === "array" && s.items ? "[" + outline(s.items, used, indent) + ", …]" : kind).join(" | ");
}

function outlines(schema) {
  const used = new Set(), told = [outline(schema, used)];
  for (const name of used) {
    const s = api.components.schemas[name], about = [bounds(s), s.description].filter(Boolean).join(". ");
    told.push(name + ": " + outline(s, used) + (about ? "\n  — " + about : ""));
  }
  return told.slice(schema.$ref ? 1 : 0).join("\n\n");
}

// ---- one operation
function field(parameter) {
  const s = resolve(parameter.schema), options = s.enum || (s.type === "boolean" ? ["true", "false"] : null);
  const example = [].concat(parameter.example ?? "").join(",");
  const name = parameter.name;
  const input = options
    ? make("select", { name }, ...["", ...options].map((one) => make("option", { value: one, textContent: one })))
    : make("input", { name, placeholder: example, autocomplete: "off", spellcheck: false });
  if (parameter.required || name === "namespace") input.value = example;
  input.setAttribute("aria-label", name);
  return { parameter, input };
}

function request(method, path, fields, body, kind) {
  const query = new URLSearchParams(), headers = {};
  for (const { parameter: { name, in: where }, input: { value } } of fields) {
    if (where === "path") path = path.replace(`{${name}}`, encodeURIComponent(value).replace(/^\.\.?$/, (dots) => dots.replaceAll(".", "%2E")));
    else if (value === "") continue;
    else if (where === "query") query.set(name, value);
    else headers[name] = value;
  }
  if (body) headers["Content-Type"] = kind;
  const url = new URL($("server").value + path + (query.size ? "?" + query : ""), new URL("openapi.json", location.href));
  return { url: url.href, method: method.toUpperCase(), headers, body: body || undefined };
}

function curl({ url, method, headers, body }) {
  const quoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";
  const parts = ["curl -X " + method + " " + quoted(url)];
  for (const [name, value] of Object.entries(headers)) parts.push("-H " + quoted(name + ": " + value));
  if (body) parts.push("--data-binary " + quoted(body));
  return parts.join(" \\\n  ");
}

async function send({ url, ...told }, output) {
  const status = make("p"), heads = make("pre"), text = make("pre", { tabIndex: 0 });
  output.replaceChildren(status, heads, text);
  status.textContent = "…";
  try {
    const begun = performance.now(), answer = await fetch(url, { ...told, cache: "no-store" });
    status.textContent = `${answer.status} ${answer.statusText} · ${Math.round(performance.now() - begun)} ms`;
    status.className = answer.ok || answer.status === 304 ? "" : "bad";
    heads.textContent = [...answer.headers].map(([name, value]) => name + ": " + value).join("\n");
    const reader = answer.body && answer.body.getReader(), decoder = new TextDecoder();
    let all = "";
    for (let part; reader && !(part = await reader.read()).done;) text.textContent = all += decoder.decode(part.value, { stream: true });
    text.textContent = pretty(all);
  } catch (error) {
    status.textContent = "No answer: " + error.message;
    status.className = "bad";
  }
}

function contentOf(content) {
  const shown = [];
  for (const [kind, { schema, examples }] of Object.entries(content || {})) {
    for (const [name, one] of Object.entries(examples || {})) {
      const { summary, value } = resolve(one);
      const text = typeof value === "string" ? value : JSON.stringify(value, null, 2);
      shown.push(make("details", {}, make("summary", { textContent: "Example: " + (summary || name) }), make("pre", { textContent: text })));
    }
    if (kind !== "application/problem+json") shown.push(make("details", {}, make("summary", { textContent: "Schema · " + kind }), make("pre", { textContent: outlines(schema) })));
  }
  return shown;
}

function fill(inside, path, method, item, op) {
  const parameters = [...(item.parameters || []), ...(op.parameters || [])].map(resolve);
  const fields = parameters.map(field), output = make("div", { ariaLive: "polite" });
  const form = make("form");
  inside.append(make("p", { className: "note" }, ...prose(op.description)), form);
  if (fields.length) {
    form.append(make("h3", { textContent: "Parameters" }), make("table", {}, ...fields.map(({ parameter, input }) => make("tr", {},
      make("td", {}, make("code", { textContent: parameter.name }), make("div", { className: "note", textContent: parameter.in + (parameter.required ? ", required" : "") })),
      make("td", {}, input),
      make("td", { className: "note" }, ...sentences(parameter.description, bounds(resolve(parameter.schema))))))));
  }
  let body, kind;
  if (op.requestBody) {
    const contents = op.requestBody.content;
    const examples = Object.entries(contents).flatMap(([type, { examples: told }]) => Object.values(told).map((one) => ({ type, ...one })));
    body = make("textarea", { spellcheck: false });
    body.setAttribute("aria-label", "Body");
    kind = make("select", {}, ...examples.map((one, i) => make("option", { value: i, textContent: one.summary + " · " + one.type })));
    kind.setAttribute("aria-label", "Example");
    const take = () => { const { value } = examples[kind.value]; body.value = typeof value === "string" ? value : JSON.stringify(value, null, 2); body.rows = Math.min(24, body.value.split("\n").length + 1); };
    kind.onchange = take;
    take();
    form.append(make("h3", { textContent: "Body" }), make("div", { className: "row" }, kind), body, ...contentOf(Object.fromEntries(
      Object.entries(contents).map(([type, { schema }]) => [type, { schema }]))));
    kind.typeOf = () => examples[kind.value].type;
  }
  const now = () => request(method, path, fields, body && body.value, kind && kind.typeOf());
  const copy = make("button", { type: "button", textContent: "Copy as curl" });
  copy.onclick = async () => {
    const text = curl(now());
    output.replaceChildren(make("pre", { textContent: text, tabIndex: 0 }));
    try { await navigator.clipboard.writeText(text); copy.textContent = "Copied"; } catch { copy.textContent = "Copy it from below"; }
    setTimeout(() => { copy.textContent = "Copy as curl"; }, 2000);
  };
  form.append(make("div", { className: "row" }, make("button", { textContent: "Send" }), copy));
  form.onsubmit = (event) => { event.preventDefault(); send(now(), output); };
  form.onkeydown = (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); form.requestSubmit(); } };
  inside.append(output, make("h3", { textContent: "Answers" }));
  for (const [status, answer] of Object.entries(op.responses)) {
    inside.append(make("div", {}, make("strong", { textContent: status + " " }), ...prose(answer.description),
      ...Object.entries(answer.headers || {}).map(([name, told]) => make("div", { className: "note", textContent: name + ": " + (told.description || "") })),
      ...contentOf(answer.content)));
  }
}

function show() {
  const groups = new Map(api.tags.map((tag) => [tag.name, { tag, all: [] }]));
  for (const [path, item] of Object.entries(api.paths)) {
    for (const method of METHODS) if (item[method]) groups.get(item[method].tags[0]).all.push({ path, method, item, op: item[method] });
  }
  for (const { tag, all } of groups.values()) {
    const section = make("section", {}, make("h2", { textContent: tag.name }), make("p", { className: "note", textContent: tag.description }));
    const list = make("div", {}, make("h2", { textContent: tag.name }));
    for (const { path, method, item, op } of all) {
      const badge = () => make("span", { className: "method " + method, textContent: method.toUpperCase() });
      const inside = make("div", { className: "inside" });
      const box = make("details", { className: "operation", id: op.operationId }, make("summary", {}, badge(), make("span", { className: "path", textContent: path }), op.summary), inside);
      box.addEventListener("toggle", () => { if (box.open && !inside.childElementCount) fill(inside, path, method, item, op); });
      const link = make("a", { href: "#" + op.operationId, title: op.summary }, badge(), path);
      link.onclick = () => { box.open = true; };
      box.words = link.words = [path, method, op.summary, op.description, op.operationId].join(" ").toLowerCase();
      section.append(box);
      list.append(link);
    }
    $("operations").append(section);
    $("contents").append(list);
  }
  $("find").oninput = () => {
    const words = $("find").value.toLowerCase().split(/\s+/);
    for (const one of document.querySelectorAll(".operation, nav a")) one.hidden = !words.every((word) => one.words.includes(word));
    for (const one of document.querySelectorAll("section, nav > div")) one.hidden = !one.querySelector(".operation:not([hidden]), a:not([hidden])");
  };
  const named = () => { const box = $(location.hash.slice(1)); if (box && box.matches(".operation")) { box.open = true; box.scrollIntoView(); } };
  addEventListener("hashchange", named);
  named();
}

document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) { event.preventDefault(); $("find").focus(); }
});

fetch("openapi.json").then((answer) => answer.json()).then((told) => {
  api = told;
  $("title").textContent = `${api.info.title} ${api.info.version}`;
  $("about").replaceChildren(...prose(api.info.description));
  $("server").append(...api.servers.map(({ url }) => make("option", { value: url, textContent: url })));
  show();
}).catch((error) => { $("about").textContent = "openapi.json could not be read: " + error.message; $("about").className = "bad"; });
