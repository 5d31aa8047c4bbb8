"""Build alignx/assets/facts.jsonl.gz: real facts about countries, and facts about countries that do not exist.

    npm pack cldr-localenames-full@48.2.0 cldr-dates-full@48.2.0 cldr-core@48.2.0 countries-list@3.4.1
    python tools/build_facts.py --packages DIR     # DIR holds the four .tgz files; a few seconds

The names of countries, continents, cities and weekdays in 24 languages are from the Unicode CLDR (Unicode-3.0), and
which city is the capital of which country is from countries-list (MIT). A continent is used only where both agree.
The same packages give the same bytes: every choice is drawn from `SEED`.

The file has two kinds of rows. `{"name", "text": {language: string}}` is a name or the wording of a question;
`{"fact", "kind", "relation", "split", "subject", "options", "answer"}` is a fact that refers to such names. `split` is
`train` where the embedded model has read the fact while it was trained, and `test` everywhere else.
"""
import argparse
import gzip
import json
import random
import sys
import tarfile
import unicodedata
from collections import Counter, defaultdict
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
from build_demo_assets import write_lines  # noqa: E402

SEED = 20261
LANGUAGES = ("en", "zh", "es", "fr", "de", "ru", "ja", "ar", "bn", "sw", "th", "tr",
             "hi", "ko", "vi", "id", "pt", "it", "pl", "nl", "el", "fa", "ur", "fi")  # fmt: skip
PACKAGES = {"cldr-localenames-full": "48.2.0", "cldr-dates-full": "48.2.0", "cldr-core": "48.2.0", "countries-list": "3.4.1"}
OWN_SCRIPT = ("zh", "ru", "ja", "ar", "bn", "th", "hi", "ko", "el", "fa", "ur")
CONTINENTS = {"AF": "002", "NA": "003", "SA": "005", "OC": "009", "AS": "142", "EU": "150"}
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
COUNTRIES = 126
TRIES = 200
DISPUTED = ("IL", "LK")  # sources differ about which city is the capital
# Their facts are in the text that the embedded model was trained on: `split` "train" of transfer.jsonl.gz, see build_demo_assets.py
READ_IN_TRAINING = """AE AL AM AO AR AT AZ BA BB BD BF BG BH BJ BN BO CA CD CG CI CL CM CN CO CR CU CY CZ DE DK DM DZ EC EG ER ES FI
FM GB GE GH GM GW HN HR HT ID IE IL IN IS JO JP KE KG KH KI KN KR KW KZ LC LI LK LR LS LU LV LY MA MD MG MH MK
MM MR MT MX MY NE NG NI NO NP NZ PG PK PY RO RW SA SB SG SI SK SL SO SS ST SZ TJ TN TR TT TV TZ UA UG US UY UZ
VE VN WS YE ZA ZW""".split()

QUESTIONS = {
    "capital": {
        "en": "Name the capital city of the country given below.",
        "zh": "说出下面这个国家的首都。",
        "es": "Di cuál es la capital del país que se indica a continuación.",
        "fr": "Donne la capitale du pays indiqué ci-dessous.",
        "de": "Nenne die Hauptstadt des unten angegebenen Landes.",
        "ru": "Назовите столицу указанной ниже страны.",
        "ja": "次の国の首都を答えてください。",
        "ar": "اذكر عاصمة البلد المذكور أدناه.",
        "bn": "নিচে দেওয়া দেশটির রাজধানীর নাম বলুন।",
        "sw": "Taja mji mkuu wa nchi iliyotajwa hapa chini.",
        "th": "จงบอกชื่อเมืองหลวงของประเทศต่อไปนี้",
        "tr": "Aşağıda verilen ülkenin başkentini söyleyin.",
        "hi": "नीचे दिए गए देश की राजधानी का नाम बताइए।",
        "ko": "다음 나라의 수도를 말하세요.",
        "vi": "Hãy cho biết thủ đô của quốc gia dưới đây.",
        "id": "Sebutkan ibu kota negara di bawah ini.",
        "pt": "Diga qual é a capital do país indicado abaixo.",
        "it": "Indica la capitale del paese riportato sotto.",
        "pl": "Podaj stolicę kraju wymienionego poniżej.",
        "nl": "Noem de hoofdstad van het onderstaande land.",
        "el": "Πείτε την πρωτεύουσα της παρακάτω χώρας.",
        "fa": "پایتخت کشور زیر را نام ببرید.",
        "ur": "نیچے دیے گئے ملک کے دارالحکومت کا نام بتائیں۔",
        "fi": "Nimeä alla mainitun maan pääkaupunki.",
    },
    "continent": {
        "en": "On which continent is the country given below?",
        "zh": "下面这个国家位于哪个洲？",
        "es": "¿En qué continente está el país que se indica a continuación?",
        "fr": "Sur quel continent se trouve le pays indiqué ci-dessous ?",
        "de": "Auf welchem Kontinent liegt das unten angegebene Land?",
        "ru": "На каком континенте находится указанная ниже страна?",
        "ja": "次の国はどの大陸にありますか。",
        "ar": "في أي قارة يقع البلد المذكور أدناه؟",
        "bn": "নিচে দেওয়া দেশটি কোন মহাদেশে অবস্থিত?",
        "sw": "Nchi iliyotajwa hapa chini iko katika bara gani?",
        "th": "ประเทศต่อไปนี้อยู่ในทวีปใด",
        "tr": "Aşağıda verilen ülke hangi kıtadadır?",
        "hi": "नीचे दिया गया देश किस महाद्वीप में है?",
        "ko": "다음 나라는 어느 대륙에 있습니까?",
        "vi": "Quốc gia dưới đây nằm ở châu lục nào?",
        "id": "Di benua mana negara di bawah ini terletak?",
        "pt": "Em que continente fica o país indicado abaixo?",
        "it": "In quale continente si trova il paese riportato sotto?",
        "pl": "Na którym kontynencie leży kraj wymieniony poniżej?",
        "nl": "Op welk continent ligt het onderstaande land?",
        "el": "Σε ποια ήπειρο βρίσκεται η παρακάτω χώρα;",
        "fa": "کشور زیر در کدام قاره قرار دارد؟",
        "ur": "نیچے دیا گیا ملک کس براعظم میں ہے؟",
        "fi": "Millä mantereella alla mainittu maa sijaitsee?",
    },
    "rest_day": {
        "en": "Which day of the week is the day of rest in the country given below?",
        "zh": "下面这个国家的休息日是星期几？",
        "es": "¿Qué día de la semana es el día de descanso en el país que se indica a continuación?",
        "fr": "Quel jour de la semaine est le jour de repos dans le pays indiqué ci-dessous ?",
        "de": "Welcher Wochentag ist in dem unten angegebenen Land der Ruhetag?",
        "ru": "Какой день недели является днём отдыха в указанной ниже стране?",
        "ja": "次の国の休日は何曜日ですか。",
        "ar": "ما يوم الراحة الأسبوعي في البلد المذكور أدناه؟",
        "bn": "নিচে দেওয়া দেশটিতে সপ্তাহের কোন দিনটি বিশ্রামের দিন?",
        "sw": "Ni siku gani ya wiki ambayo ni siku ya mapumziko katika nchi iliyotajwa hapa chini?",
        "th": "ประเทศต่อไปนี้มีวันหยุดประจำสัปดาห์เป็นวันอะไร",
        "tr": "Aşağıda verilen ülkede haftanın dinlenme günü hangi gündür?",
        "hi": "नीचे दिए गए देश में सप्ताह का कौन सा दिन विश्राम का दिन है?",
        "ko": "다음 나라의 쉬는 날은 무슨 요일입니까?",
        "vi": "Ngày nghỉ trong tuần ở quốc gia dưới đây là ngày nào?",
        "id": "Hari apa yang menjadi hari libur mingguan di negara di bawah ini?",
        "pt": "Qual dia da semana é o dia de descanso no país indicado abaixo?",
        "it": "Quale giorno della settimana è il giorno di riposo nel paese riportato sotto?",
        "pl": "Który dzień tygodnia jest dniem odpoczynku w kraju wymienionym poniżej?",
        "nl": "Welke dag van de week is de rustdag in het onderstaande land?",
        "el": "Ποια ημέρα της εβδομάδας είναι η ημέρα ανάπαυσης στην παρακάτω χώρα;",
        "fa": "کدام روز هفته در کشور زیر روز تعطیل است؟",
        "ur": "نیچے دیے گئے ملک میں ہفتے کا کون سا دن آرام کا دن ہے؟",
        "fi": "Mikä viikonpäivä on lepopäivä alla mainitussa maassa?",
    },
}

# A syllable in the scripts that are not Latin, after the way in which CLDR spells foreign names in them
SYLLABLES = {
    "ba": ("巴", "ба", "バ", "با", "বা", "บา", "बा", "바", "μπα", "با"), "bi": ("比", "би", "ビ", "بي", "বি", "บี", "बि", "비", "μπι", "بی"),
    "bu": ("布", "бу", "ブ", "بو", "বু", "บู", "बु", "부", "μπου", "بو"), "da": ("达", "да", "ダ", "دا", "দা", "ดา", "दा", "다", "ντα", "دا"),
    "di": ("迪", "ди", "ディ", "دي", "দি", "ดี", "दि", "디", "ντι", "دی"), "du": ("杜", "ду", "ドゥ", "دو", "দু", "ดู", "दु", "두", "ντου", "دو"),
    "ka": ("卡", "ка", "カ", "كا", "কা", "คา", "का", "카", "κα", "کا"), "ki": ("基", "ки", "キ", "كي", "কি", "คี", "कि", "키", "κι", "کی"),
    "ku": ("库", "ку", "ク", "كو", "কু", "คู", "कु", "쿠", "κου", "کو"), "la": ("拉", "ла", "ラ", "لا", "লা", "ลา", "ला", "라", "λα", "لا"),
    "li": ("利", "ли", "リ", "لي", "লি", "ลี", "लि", "리", "λι", "لی"), "lu": ("卢", "лу", "ル", "لو", "লু", "ลู", "लु", "루", "λου", "لو"),
    "ma": ("马", "ма", "マ", "ما", "মা", "มา", "मा", "마", "μα", "ما"), "mi": ("米", "ми", "ミ", "مي", "মি", "มี", "मि", "미", "μι", "می"),
    "mu": ("穆", "му", "ム", "مو", "মু", "มู", "मु", "무", "μου", "مو"), "na": ("纳", "на", "ナ", "نا", "না", "นา", "ना", "나", "να", "نا"),
    "ni": ("尼", "ни", "ニ", "ني", "নি", "นี", "नि", "니", "νι", "نی"), "nu": ("努", "ну", "ヌ", "نو", "নু", "นู", "नु", "누", "νου", "نو"),
    "sa": ("萨", "са", "サ", "سا", "সা", "ซา", "सा", "사", "σα", "سا"), "si": ("西", "си", "シ", "سي", "সি", "ซี", "सि", "시", "σι", "سی"),
    "su": ("苏", "су", "ス", "سو", "সু", "ซู", "सु", "수", "σου", "سو"), "ta": ("塔", "та", "タ", "تا", "তা", "ทา", "ता", "타", "τα", "تا"),
    "ti": ("蒂", "ти", "ティ", "تي", "তি", "ที", "ति", "티", "τι", "تی"), "tu": ("图", "ту", "トゥ", "تو", "তু", "ทู", "तु", "투", "του", "تو"),
}  # fmt: skip
SCRIPTS = ("zh", "ru", "ja", "ar", "bn", "th", "hi", "ko", "el", "fa")
ENDINGS = {"zh": "亚", "ru": "я", "ja": "ア", "ar": "ا", "bn": "য়া", "hi": "या", "ko": "아", "el": "α", "fa": "ا"}


# ---------------------------------------------------------------------------------------------- names
class Packages:
    "JSON files inside the npm packages."

    def __init__(self, folder: Path):
        self.archives = {}
        for name, version in PACKAGES.items():
            path = folder / f"{name}-{version}.tgz"
            if not path.is_file():
                raise SystemExit(f"{path}: not there; run `npm pack {name}@{version}` in that folder")
            self.archives[name] = tarfile.open(path)

    def read(self, package: str, path: str):
        with self.archives[package].extractfile(f"package/{path}") as file:
            return json.load(file)


def clean(text: str) -> str:
    "Composed characters, single ordinary spaces, and no marks of direction."
    text = unicodedata.normalize("NFC", text)
    return " ".join("".join(c for c in text if c not in "\u200e\u200f").split())


def plain(text: str) -> str:
    "Small letters and digits without accents: the form in which names are compared."
    return "".join(c for c in unicodedata.normalize("NFKD", text).casefold() if c.isalnum())


def zone_names(packages: Packages, language: str) -> dict[str, str]:
    "Time zone → its exemplar city, as far as the language has a name of its own for it."
    found = {}

    def walk(node, parts):
        for key, value in node.items():
            if isinstance(value, dict) and "exemplarCity" in value:
                found["/".join([*parts, key])] = clean(value["exemplarCity"])
            elif isinstance(value, dict) and "_type" not in value:
                walk(value, [*parts, key])

    walk(packages.read("cldr-dates-full", f"main/{language}/timeZoneNames.json")["main"][language]["dates"]["timeZoneNames"]["zone"], [])
    return found


def city_names(packages: Packages) -> dict[str, dict[str, str]]:
    "Zone → language → city. In Latin script, what is not named is the last part of the zone's id (CLDR's rule)."
    by_language = {language: zone_names(packages, language) for language in LANGUAGES}
    cities = {}
    for zone in sorted(set().union(*by_language.values())):
        if all(zone in by_language[language] for language in OWN_SCRIPT):
            usual = clean(zone.split("/")[-1].replace("_", " "))
            cities[zone] = {language: names.get(zone, usual) for language, names in by_language.items()}
    return cities


def territory_names(packages: Packages) -> dict[str, dict[str, str]]:
    "Code → language → name."
    tables = {l: packages.read("cldr-localenames-full", f"main/{l}/territories.json")["main"][l]["localeDisplayNames"]["territories"] for l in LANGUAGES}
    return {code: {language: clean(names[code]) for language, names in tables.items()} for code in tables["en"] if all(code in names for names in tables.values())}


def day_names(packages: Packages) -> dict[str, dict[str, str]]:
    "Day → language → name."
    path = "main/{0}/ca-gregorian.json"
    tables = {l: packages.read("cldr-dates-full", path.format(l))["main"][l]["dates"]["calendars"]["gregorian"]["days"]["stand-alone"]["wide"] for l in LANGUAGES}
    return {day: {language: clean(names[day]) for language, names in tables.items()} for day in DAYS}


# ---------------------------------------------------------------------------------------------- real facts
def continents_of(packages: Packages) -> dict[str, str]:
    "Country of the United Nations → continent, where CLDR and countries-list agree that it lies on one."
    containment = packages.read("cldr-core", "supplemental/territoryContainment.json")["supplemental"]["territoryContainment"]

    def inside(code):
        return {code}.union(*(inside(part) for part in containment.get(code, {}).get("_contains", []) if part != code))

    listed = packages.read("countries-list", "countries.min.json")
    cldr = {country: code for code in CONTINENTS.values() for country in inside(code)}
    members = containment["UN"]["_contains"]
    return {c: CONTINENTS[listed[c]["continent"]] for c in sorted(members) if "continents" not in listed[c] and cldr.get(c) == CONTINENTS[listed[c]["continent"]]}


def capitals_of(packages: Packages, cities: dict) -> dict[str, str]:
    "Country → time zone whose exemplar city is its capital."
    by_name = defaultdict(list)
    for zone, names in cities.items():
        by_name[plain(names["en"])].append(zone)
    listed = packages.read("countries-list", "countries.min.json")
    members = packages.read("cldr-core", "supplemental/territoryContainment.json")["supplemental"]["territoryContainment"]["UN"]["_contains"]
    found = {country: by_name[plain(listed[country]["capital"])] for country in sorted(members)}
    return {country: zones[0] for country, zones in found.items() if len(zones) == 1}


@lru_cache(maxsize=None)
def pieces(text: str) -> frozenset:
    "Runs of two characters."
    text = plain(text)
    return frozenset(text[i : i + 2] for i in range(max(1, len(text) - 1)))


@lru_cache(maxsize=None)
def likeness(first: str, second: str) -> float:
    "Dice's coefficient of the runs of two characters, 0 to 1."
    return 2 * len(pieces(first) & pieces(second)) / (len(pieces(first)) + len(pieces(second)))


def gives_itself_away(subject: dict, answer: dict) -> bool:
    "Whether in any language the answer is much like the question (Mexico, Mexico City)."
    return any(likeness(subject[l], answer[l]) >= 0.4 or plain(answer[l])[:4] == plain(subject[l])[:4] for l in LANGUAGES)


# ---------------------------------------------------------------------------------------------- invented countries
def spell(syllables: tuple[str, ...]) -> dict[str, str]:
    "An invented name: in Latin letters for the languages that use them, and syllable by syllable in each other script."
    latin = "".join(syllables).capitalize() + "a"
    name = {language: latin for language in LANGUAGES}
    for place, language in enumerate(SCRIPTS):
        parts = [SYLLABLES[syllable][place] for syllable in syllables]
        if language == "th":
            name[language] = "".join(parts[:-1]) + "เ" + parts[-1] + "ย"
        else:
            name[language] = "".join(parts) + ENDINGS[language]
    name["el"] = name["el"][:-2].capitalize() + "ία"
    name["ru"] = name["ru"].capitalize()
    name["ur"] = name["fa"]
    return {language: clean(text) for language, text in name.items()}


def edits(a: str, b: str) -> int:
    "Levenshtein distance."
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, last = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (x != y)))
    return row[-1]


def invented_names(count: int, known: list[str], chance: random.Random) -> list[dict[str, str]]:
    "Names that differ in two letters or more from each other, and in three or more from every known one."
    first, last = sorted(SYLLABLES), sorted(s for s in SYLLABLES if s.endswith("i"))
    drawn = [(a, b, c) for a in first for b in first for c in last if len({a, b, c}) == 3]
    chance.shuffle(drawn)
    names = []
    for syllables in drawn:
        name = spell(syllables)
        low = name["en"].casefold()
        if all(edits(low, other["en"].casefold()) >= 2 for other in names) and all(edits(low, other) >= 3 for other in known):
            names.append(name)
            if len(names) == count:
                return names
    raise SystemExit(f"only {len(names)} of {count} names are distinct enough")


# ---------------------------------------------------------------------------------------------- options
def draw_options(answers: list[str], pools: list[list[str]], chance: random.Random) -> list[list[str]] | None:
    "Three wrong options for each answer, so that every option is wrong three times as often as it is right; None if the draw got stuck."
    left = Counter({answer: 3 * count for answer, count in Counter(answers).items()})
    wrong = [None] * len(answers)
    for i in chance.sample(range(len(answers)), len(answers)):
        candidates = [name for name in pools[i] if name != answers[i] and left[name]]
        chance.shuffle(candidates)
        candidates.sort(key=lambda name: -left[name])
        if len(candidates) < 3:
            return None
        wrong[i] = candidates[:3]
        left.subtract(wrong[i])
    return wrong if not any(left.values()) else None


def blind_guesses(facts: list[dict], text: dict) -> float:
    "The largest distance from chance, over languages, of a solver that looks at length or at likeness to the question."
    worst = 0.0
    for language in LANGUAGES:
        hits = Counter()
        for fact in facts:
            options = [text[name][language] for name in fact["options"]]
            subject = text[fact["subject"]][language]
            scores = {"long": [len(o) for o in options], "short": [-len(o) for o in options], "like": [likeness(subject, o) for o in options]}
            for solver, values in scores.items():
                best = [i for i, value in enumerate(values) if value == max(values)]
                hits[solver] += (fact["answer"] in best) / len(best)
        worst = max(worst, *(abs(hits[solver] / len(facts) - 0.25) for solver in ("long", "short", "like")))
    return worst


def with_options(facts: list[dict], group, text: dict, name: str) -> list[dict]:
    "The facts with four options each, in the order that tells a solver without a model the least among `TRIES` draws."
    best = None
    for number in range(TRIES):
        chance = random.Random(f"{SEED}:{name}:{number}")
        answers = [fact["object"] for fact in facts]
        pools = [sorted({other["object"] for other in facts if group(other) == group(fact)}) for fact in facts]
        wrong = draw_options(answers, pools, chance)
        if wrong is None:
            continue
        places = [i % 4 for i in range(len(facts))]
        chance.shuffle(places)
        drawn = []
        for fact, others, place in zip(facts, wrong, places):
            chance.shuffle(others)
            options = [*others[:place], fact["object"], *others[place:]]
            drawn.append({**{k: v for k, v in fact.items() if k != "object"}, "options": options, "answer": place})
        told = blind_guesses(drawn, text)
        if best is None or told < best[0]:
            best = told, drawn
    if best is None:
        raise SystemExit(f"{name}: no balanced draw of options in {TRIES} tries")
    print(f"{name}: {len(facts)} facts; a solver without a model is at most {best[0]:.3f} from chance in any language")
    return best[1]


# ---------------------------------------------------------------------------------------------- facts
def distinct(names: list[str], text: dict) -> list[str]:
    "Names that no other of them equals, in any language."
    kept, taken = [], [set() for _ in LANGUAGES]
    for name in names:
        forms = [plain(text[name][language]) for language in LANGUAGES]
        if all(form not in seen for form, seen in zip(forms, taken)):
            kept.append(name)
            for form, seen in zip(forms, taken):
                seen.add(form)
    return kept


def real_facts(packages: Packages, text: dict, capitals: dict, continents: dict) -> list[dict]:
    "Capitals and continents of countries, train and test apart."
    out = []
    for split in ("train", "test"):
        here = [c for c in sorted(continents) if (c in READ_IN_TRAINING) == (split == "train")]
        facts = [{"country": c, "object": capitals[c]} for c in here if c in capitals and c not in DISPUTED and not gives_itself_away(text[f"country.{c}"], text[capitals[c]])]
        size = Counter(continents[f["country"]] for f in facts)
        pooled = {code for code in size if size[code] < 6}
        while pooled and sum(size[code] for code in pooled) < 6:
            pooled.add(min(size.keys() - pooled, key=lambda code: (size[code], code)))
        home = {f"country.{c}": "pooled" if code in pooled else code for c, code in continents.items()}
        rows = [{"fact": f"capital.{f['country']}", "kind": "real", "relation": "capital", "split": split, "subject": f"country.{f['country']}", "object": f["object"]} for f in facts]
        out += with_options(rows, lambda row: home[row["subject"]], text, f"real capital, {split}")
        by_continent = defaultdict(list)
        chance = random.Random(f"{SEED}:continent:{split}")
        for c in chance.sample(here, len(here)):
            if not gives_itself_away(text[f"country.{c}"], text[f"continent.{continents[c]}"]):
                by_continent[continents[c]].append(c)
        most = max(size for size in range(1, 60) if sum(min(size, len(cs)) for cs in by_continent.values()) >= 4 * size)
        chosen = sorted(c for cs in by_continent.values() for c in cs[:most])
        rows = [{"fact": f"continent.{c}", "kind": "real", "relation": "continent", "split": split, "subject": f"country.{c}", "object": f"continent.{continents[c]}"} for c in chosen]
        out += with_options(rows, lambda row: "", text, f"real continent, {split}")
    return out


def novel_facts(text: dict, capitals: list[str], countries: list[str]) -> list[dict]:
    "Capital, continent and day of rest of countries that do not exist, each drawn independently of the others."
    out = []
    continents, days = [f"continent.{code}" for code in CONTINENTS.values()], [f"day.{day}" for day in DAYS]
    for relation, pool in (("capital", capitals), ("continent", continents), ("rest_day", days)):
        chance = random.Random(f"{SEED}:{relation}")
        objects = chance.sample(pool, len(countries)) if len(pool) >= len(countries) else pool * (len(countries) // len(pool))
        chance.shuffle(objects)
        rows = [
            {"fact": f"{relation}.{text[country]['en']}", "kind": "novel", "relation": relation, "split": "test", "subject": country, "object": object}
            for country, object in zip(countries, objects, strict=True)
        ]
        out += with_options(rows, lambda row: "", text, f"novel {relation}")
    return out


def build(packages: Packages) -> list[dict]:
    "Every row of the file: the names that are used, then the facts."
    territories, cities = territory_names(packages), city_names(packages)
    text = {f"question.{relation}": wordings for relation, wordings in QUESTIONS.items()}
    text |= {f"country.{code}": names for code, names in territories.items()} | {f"continent.{code}": territories[code] for code in CONTINENTS.values()}
    text |= {f"city.{zone.split('/')[-1]}": names for zone, names in cities.items()} | {f"day.{day}": names for day, names in day_names(packages).items()}
    continents = continents_of(packages)
    capitals = {country: f"city.{zone.split('/')[-1]}" for country, zone in capitals_of(packages, cities).items()}
    usable = set(distinct(sorted(set(capitals.values())), text))
    capitals = {country: city for country, city in capitals.items() if city in usable}
    known = sorted({names["en"].casefold() for names in [*territories.values(), *cities.values()]})
    invented = {f"invented.{name['en']}": name for name in invented_names(COUNTRIES, known, random.Random(f"{SEED}:names"))}
    text |= invented
    print(f"{len(capitals)} capitals with a name in {len(LANGUAGES)} languages, {len(continents)} countries on one continent")
    free = [city for city in sorted(set(capitals.values())) if plain(text[city]["en"]) not in {plain(names["en"]) for names in territories.values()}]
    facts = real_facts(packages, text, capitals, continents) + novel_facts(text, free, sorted(invented))
    used = {name for fact in facts for name in (fact["subject"], *fact["options"], f"question.{fact['relation']}")}
    return [{"name": name, "text": {l: text[name][l] for l in LANGUAGES}} for name in sorted(used)] + facts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packages", type=Path, required=True, help="folder of the four npm packages, as .tgz")
    parser.add_argument("--output", type=Path, default=ROOT / "alignx" / "assets" / "facts.jsonl.gz")
    arguments = parser.parse_args()
    rows = build(Packages(arguments.packages))
    write_lines(arguments.output, rows)
    with gzip.open(arguments.output) as file:
        print(f"{arguments.output.name}: {len(rows)} rows, {len(file.read()) / 1e3:.0f} kB, {arguments.output.stat().st_size / 1e3:.0f} kB compressed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
