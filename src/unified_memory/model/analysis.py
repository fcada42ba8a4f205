"""From text to the terms that are compared: words, their stems, and forms that no rule of stemming joins.

A language is the name of a snowball stemmer (https://snowballstem.org/algorithms/), or `none`: words as they are.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import Stemmer

from unified_memory.model.search import MAX_TERMS, STOP_WORDS, Term, camel_parts, fold, index_words, raw_words

ENGLISH = "english"
NONE = "none"
# Words of these are made of letters and marks, which the cutting into words does not keep together.
_WITH_MARKS = {"hindi", "nepali", "tamil"}
LANGUAGES = (NONE, *(n for n in Stemmer.algorithms() if n not in {"porter", "dutch_porter"} | _WITH_MARKS))
# Their stemmers need the signs above the letters; those of the Latin ones do not, and people leave them out when they ask.
_SIGNS_MATTER = {"arabic", "armenian", "greek", "persian", "russian", "serbian", "yiddish"}
# Stands behind each term of a text in another language than English: a letter of no script (private use), so that the
# index's own English stemmer leaves the term as it is and terms of different languages are different.
MARK = "\ue000"

# So many words are remembered with their stems.
KNOWN_WORDS = 20_000

_STOP_WORDS = {
    "german": "aber als am an auch auf aus bei bin bis das dass dem den der des die doch du durch ein eine einem einen einer"
    " er es für habe haben hat hatte ich ihr im in ist ja kann man mein mit nach nicht noch nur oder sein sich sie sind so um"
    " und uns unser vom von vor war waren warum was wann wer wie wir wird wo zu zum zur",
    "french": "a ai au aux avec ce ces c d dans de des du elle en est et été il ils j je l la le les leur lui ma mais me mes"
    " mon n ne nos notre nous on ont ou où par pas pour qu quand que quel quelle qui quoi s sa se ses son sont sur ta te tes"
    " ton tu un une vos votre vous y",
    "spanish": "a al como con cual cuando cuál cuándo de del donde dónde e el ella ellos en era es esta este fue ha han hay"
    " la las le les lo los me mi mis muy más no nos o para pero por porque que quien qué quién se ser si sin su sus te tu un"
    " una unas unos y ya yo",
    "italian": "a ai al alla anche che chi ci come con cosa da dal dalla dei del della delle di do dove e ed era gli ha hanno"
    " ho i il in io la le lo ma mi nel nella noi non o per perché più quale quando quello questo se si sono su sua sul suo"
    " ti tra tu un una uno voi è",
    "portuguese": "a ao aos as com como da das de do dos e ela ele em era es está eu foi há isso já lhe mais mas me meu minha"
    " na nas no nos não o onde os ou para pela pelo por porque qual quando que quem se sem ser seu sua são também te um uma"
    " você é",
    "dutch": "aan al als bij dan dat de den der des die dit door een en er had heb heeft het hij hoe hun ik in is je kan maar"
    " me met mij mijn na naar niet nog nu of om onder ons ook op over te toen tot uit van voor waar waarom wanneer was wat we"
    " welke wie wij worden zal ze zich zij zijn zo",
    "swedish": "alla att av de dem den det detta du där efter ej eller en ett från för ha hade han har hon hur här i inte ja"
    " jag kan kunde man med men mig min mot mycket ni nu när och om oss på sedan sig sin ska som så till under upp ut vad var"
    " varför vem vi vid vilken är",
    "russian": "а без бы был была были было быть в вам вас во вот все вы где да для до его ее если есть же за и из или им их"
    " к как какой когда кто ли мне мой мы на наш не него нет но о об он она они от по при с со так там то ты у уже что чтобы"
    " это я",
}

# English forms that no stemmer joins, a group a line: irregular verbs, plurals, degrees, and short forms of the same word.
_IRREGULAR = """
arise arose arisen|awake awoke awoken|be am are is was were been|bear bore borne born|beat beaten|become became|begin began begun
bend bent|bet|bind bound|bite bit bitten|bleed bled|blow blew blown|break broke broken|breed bred|bring brought|build built
burn burnt|buy bought|catch caught|choose chose chosen|cling clung|come came|creep crept|deal dealt|dig dug|do did done
draw drew drawn|dream dreamt|drink drank drunk|drive drove driven|eat ate eaten|fall fell fallen|feed fed|feel felt
fight fought|find found|flee fled|fling flung|fly flew flown|forbid forbade forbidden|forget forgot forgotten
forgive forgave forgiven|freeze froze frozen|get got gotten|give gave given|go went gone|grind ground|grow grew grown
hang hung|have had has|hear heard|hide hid hidden|hold held|keep kept|kneel knelt|know knew known|lay laid|lead led
lean leant|leap leapt|learn learnt|leave left|lend lent|lie lay lain|light lit|lose lost|make made|mean meant|meet met
mistake mistook mistaken|overcome overcame|pay paid|prove proven|ride rode ridden|ring rang rung|rise rose risen|run ran
say said|see saw seen|seek sought|sell sold|send sent|sew sewn|shake shook shaken|shine shone|shoot shot|show shown
shrink shrank shrunk|sing sang sung|sink sank sunk|sit sat|sleep slept|slide slid|smell smelt|speak spoke spoken
speed sped|spell spelt|spend spent|spill spilt|spin spun|split|spoil spoilt|spring sprang sprung|stand stood
steal stole stolen|stick stuck|sting stung|stink stank stunk|strike struck stricken|strive strove striven|swear swore sworn
sweep swept|swell swollen|swim swam swum|swing swung|take took taken|teach taught|tear tore torn|tell told|think thought
throw threw thrown|tread trod trodden|understand understood|undergo underwent undergone|upset|wake woke woken
wear wore worn|weave wove woven|weep wept|win won|wind wound|withdraw withdrew withdrawn|wring wrung|write wrote written
child children kid kids|man men|woman women|person people|foot feet|tooth teeth|goose geese|mouse mice|louse lice|ox oxen
life lives|wife wives|knife knives|leaf leaves|half halves|shelf shelves|wolf wolves|thief thieves|loaf loaves|calf calves
analysis analyses|basis bases|crisis crises|diagnosis diagnoses|hypothesis hypotheses|thesis theses|axis axes
index indices indexes|matrix matrices|vertex vertices|appendix appendices|criterion criteria|phenomenon phenomena
datum data|medium media|curriculum curricula|stimulus stimuli|nucleus nuclei|fungus fungi|cactus cacti|alumnus alumni
good better best|bad worse worst|far further farther furthest|little less least|many more most
mom mum mother mommy mama|dad father daddy papa|photo photograph pic picture|tv television|fridge refrigerator|bike bicycle
phone telephone|flu influenza|ad advert advertisement|exam examination|gym gymnasium|lab laboratory|math maths mathematics
plane airplane aeroplane|doc docs document documents documentation|repo repository|config configuration|db database
env environment|auth authentication|admin administrator|app application|info information|spec specification
fave favorite favourite
color colour|center centre|theater theatre|gray grey|catalog catalogue|behavior behaviour|neighbor neighbour|flavor flavour
""".strip()


def _grouped(table: str) -> dict[str, tuple[str, ...]]:
    groups = [group.split() for line in table.splitlines() for group in line.split("|")]
    forms: dict[str, dict[str, None]] = {}
    for group in groups:
        for word in group:
            forms.setdefault(word, {}).update(dict.fromkeys(group))
    return {word: tuple(dict.fromkeys((word, *others))) for word, others in forms.items()}


class Analyzer:
    """What is known of a language. Made by `analyzer`."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._signs_matter = language in _SIGNS_MATTER
        self._stemmer = None if language == NONE else Stemmer.Stemmer("porter" if language == ENGLISH else language)
        self.stop_words = (
            STOP_WORDS if language == ENGLISH else frozenset(map(fold, _STOP_WORDS.get(language, "").split()))
        )
        self._known: dict[str, str] = {}
        self._forms = _grouped(_IRREGULAR) if language == ENGLISH else {}

    def terms(self, text: str) -> list[str]:
        """The text's words in order, each as its stem."""
        return self.stems(raw_words(text) + camel_parts(text) if self._signs_matter else index_words(text))

    def words(self, text: str) -> list[str]:
        """The text's words in order, folded, as many as `terms`."""
        return list(map(fold, raw_words(text) + camel_parts(text))) if self._signs_matter else index_words(text)

    def stems(self, cut: Iterable[str]) -> list[str]:
        """The stems of words, folded."""
        if self._stemmer is None:
            return list(map(fold, cut))
        stem = self._stemmer.stemWord
        # A stemmer may leave nothing of a word ("s"); then the word itself counts.
        if self._signs_matter:
            return [fold(stem(word) or word) for word in cut]
        return [stem(word) or word for word in map(fold, cut)]

    def stem(self, word: str) -> str:
        """The stem of a word as it is written; where it is several words once it is folded, those joined by blanks."""
        stem = self._known.get(word)
        if stem is None:
            if len(self._known) >= KNOWN_WORDS:
                self._known.clear()
            stem = self._known[word] = " ".join(self.stems(raw_words(word)))
        return stem

    def forms(self, word: str) -> tuple[str, ...]:
        """The folded word, then the other forms of it that no stemming joins with it."""
        return self._forms.get(word, (word,))


@lru_cache(maxsize=64)
def analyzer(language: str) -> Analyzer:
    """The analyzer of one of `LANGUAGES`. Raises KeyError for any other name."""
    if language not in LANGUAGES:
        raise KeyError(language)
    return Analyzer(language)


def telling(terms: Sequence[Term], languages: Iterable[str]) -> tuple[Term, ...]:
    """The terms that say something in at least one of the languages, at most 32; all of them where none does."""
    stops = [analyzer(language).stop_words for language in languages]
    told = [term for term in terms if not (term.plain and all(term.words[0] in stop for stop in stops))]
    return tuple((told or list(terms))[:MAX_TERMS])


def index_text(text: str, language: str) -> str:
    """A text as it is given to an index that stems English by itself: other languages come stemmed, and marked."""
    if language == ENGLISH:
        # The index's own cutting knows other characters as letters than we do; ASCII is the same to both.
        if not text.isascii():
            return " ".join(index_words(text))
        parts = camel_parts(text)
        return f"{text}\n{' '.join(parts)}" if parts else text
    return " ".join(marked(analyzer(language).terms(text)))


def marked(terms: Iterable[str]) -> list[str]:
    """Terms of another language than English as they stand in the index."""
    return [term + MARK for term in terms]
