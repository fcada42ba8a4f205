"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Key = Annotated[str, typer.Argument(metavar="KEY", show_default=False, help="The memory's key.")]
Value = Annotated[
    str | None,
    typer.Argument(metavar="VALUE", show_default=False, help="JSON, or else a text; - reads standard input."),
]
File = Annotated[Path | None, typer.Option("--file", metavar="PATH", help="Read the value from a file (-: stdin).")]
AsText = Annotated[bool, typer.Option("--text", help="The value is a text, also if it looks like JSON.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", metavar="NAMESPACE", help="The namespace of the key.")]
Within = Annotated[
    str | None,
    typer.Option("--namespace", "-n", metavar="NAMESPACE", help="Only there and below; otherwise everywhere."),
]
NotBelow = Annotated[bool, typer.Option("--no-recursive", help="Not in the namespaces below.")]
Ttl = Annotated[
    str | None,
    typer.Option("--ttl", metavar="DURATION", help="Expires after so many seconds, or 5m, 12h, 7d; none: never."),
]
ExpiresAt = Annotated[str | None, typer.Option("--expires-at", metavar="INSTANT", help="Expires then (RFC 3339).")]
Tags = Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="A tag; may be given several times.")]
WithTags = Annotated[
    list[str] | None, typer.Option("--tag", metavar="TAG", help="Only with this tag; several: with all of them.")
]
Importance = Annotated[int | None, typer.Option("--importance", metavar="1-10", help="How important it is.")]
Session = Annotated[str | None, typer.Option("--session", metavar="ID", help="The session it belongs to.")]
Project = Annotated[str | None, typer.Option("--project", metavar="ID", help="The project it belongs to.")]
Metadata = Annotated[
    str | None, typer.Option("--metadata", metavar="JSON", help="Metadata as an object, with any fields of your own.")
]
ExpectedVersion = Annotated[
    int | None, typer.Option("--expected-version", metavar="N", help="Only if it is at this version now.")
]
IdempotencyKey = Annotated[
    str | None, typer.Option("--idempotency-key", metavar="KEY", help="Repeating it with this key does nothing more.")
]
Filter = Annotated[
    str | None,
    typer.Option("--filter", metavar="JSON", help='An exact filter, such as {"metadata.importance": {"gte": 7}}.'),
]
OrderBy = Annotated[
    str | None, typer.Option("--order-by", metavar="FIELD", help="Order; -FIELD for the other way round.")
]
ImportanceMin = Annotated[int | None, typer.Option(metavar="1-10", help="Only at least so important.")]
OfSession = Annotated[str | None, typer.Option("--session", metavar="ID", help="Only of this session.")]
OfProject = Annotated[str | None, typer.Option("--project", metavar="ID", help="Only of this project.")]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="WHEN", help='Only changed then or after: an instant, 7d back from now, or words: "last week".'
    ),
]
Until = Annotated[str | None, typer.Option(metavar="WHEN", help="Only changed then or before.")]
MinScore = Annotated[float | None, typer.Option(metavar="SCORE", help="Nothing that scores less (0 to about 1).")]
Mode = Annotated[
    str | None,
    typer.Option(
        metavar="MODE",
        help="fulltext, semantic or hybrid (of a running service), or auto: by what there is (the default).",
    ),
]
HalfLife = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION", help="After so long, such as 30d, an unchanged memory has lost a quarter of its score."
    ),
]
ImportanceWeight = Annotated[
    float | None, typer.Option(metavar="0-1", help="How much of the score importance adds or takes at most (0.1).")
]
Explain = Annotated[bool, typer.Option("--explain", help="Also tell what each score is made of.")]
Collapse = Annotated[bool, typer.Option("--collapse", help="Show near-duplicates as one, the newest.")]
Passages = Annotated[bool, typer.Option("--passages", help="Show the best passages of long values.")]
MaxTokens = Annotated[
    int | None, typer.Option(metavar="N", help="No more hits than fit, long values by their passages.")
]
AsOf = Annotated[str | None, typer.Option(metavar="INSTANT", help="As it was then (RFC 3339).")]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", help="At most so many (50; up to 1000).")]
Cursor = Annotated[str | None, typer.Option("--cursor", metavar="CURSOR", help="Go on where a page ended.")]
