"""English reports: puts passages into sentences, and sentences into the sections of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from endoclip_jax.synthetic import phrases_en as words
from endoclip_jax.synthetic.findings import Finding, Passage

STYLES = ("prose", "dictated", "terse", "numbered", "table")
_STYLE_SHARES = (0.36, 0.26, 0.16, 0.15, 0.07)
_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


@dataclass(frozen=True)
class Voice:
    """The habits of one doctor: spelling, unit, layout."""

    american: bool
    unit: str
    style: str

    @classmethod
    def sample(cls, rng: np.random.Generator) -> Voice:
        return cls(
            american=bool(rng.random() < 0.4),
            unit="cm" if rng.random() < 0.3 else "mm",
            style=str(rng.choice(STYLES, p=_STYLE_SHARES)),
        )


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _listing(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _number(mm: int, unit: str) -> str:
    return f"{mm}" if unit == "mm" else f"{mm / 10:.1f}"


def _measure(rng: np.random.Generator, low: int, high: int, unit: str) -> str:
    """A size as written: `7 mm`, `0.7 cm`, `7 x 5 mm`, `6-7 mm`."""
    if low < high:
        return f"{_number(low, unit)}-{_number(high, unit)} {unit}"
    if high >= 4 and rng.random() < 0.15:
        other = max(1, round(high * rng.uniform(0.6, 0.95)))
        return f"{_number(high, unit)} x {_number(other, unit)} {unit}"
    return f"{_number(high, unit)} {unit}"


def _with_article(noun: str) -> str:
    vowel = noun[0].lower() in "aeio" or noun.startswith(("8", "11 ", "11-", "18 ", "18-", "LST"))
    return f"{'an' if vowel else 'a'} {noun}"


def _paris(rng: np.random.Generator, form: str) -> str:
    return _pick(rng, ("Paris 0-{}", "Paris 0-{}", "0-{}", "Paris {}", "Paris type 0-{}")).format(
        form
    )


def _form_parts(rng: np.random.Generator, f: Finding) -> tuple[str, str]:
    """(adjective before the noun, code behind it), either may be empty."""
    if f.form is None or f.form == "mass":
        return "", ""
    code = _paris(rng, f.form) if f.notation in ("paris", "both") else ""
    adjective = ""
    if f.notation in ("words", "both"):
        adjective = _pick(rng, words.FORM_ADJECTIVES[f.form])
    return adjective, code


def _noun(rng: np.random.Generator, f: Finding) -> str:
    if f.lst:
        return _pick(rng, words.LST_NAMES[f.lst])
    if f.form == "mass":
        return _pick(rng, words.MASS_NOUNS)
    adjective, code = _form_parts(rng, f)
    noun = "lesion" if f.form in ("IIb", "IIc", "IIa+IIc") else "polyp"
    return f"{adjective} {noun}".strip() + (f" ({code})" if code else "")


def _lesion(rng: np.random.Generator, f: Finding, unit: str) -> str:
    """`a 7 mm sessile polyp (Paris 0-Is)`."""
    noun = _noun(rng, f)
    if f.size_mm:
        size = _measure(rng, *f.size_mm, unit)
        if rng.random() < 0.3:
            about = _pick(rng, ("measuring {}", "measuring about {}", "of approximately {}"))
            return f"{_with_article(noun)} {about.format(size)}"
        return _with_article(f"{size} {noun}")
    if f.size_word:
        return _with_article(f"{_pick(rng, words.SIZE_WORDS[f.size_word])} {noun}")
    return _with_article(noun)


def _site(rng: np.random.Generator, f: Finding) -> str:
    """` in the sigmoid colon, 32 cm from the anal verge`, or nothing."""
    if not f.locations:
        return ""
    place = f" in the {_pick(rng, words.SITES[f.locations[0]])}"
    if f.distance_cm is not None:
        frame = _pick(rng, (", {} cm from the anal verge", " at {} cm from the anal verge"))
        place += frame.format(f.distance_cm)
    return place


def _surface(rng: np.random.Generator, f: Finding) -> str:
    said = [_pick(rng, words.SURFACE[v]) for v in f.surface]
    if len(said) == 2:
        return _pick(rng, ("partly {} and partly {}", "{} but focally {}")).format(*said)
    return _listing(said)


def _micro(f: Finding, rng: np.random.Generator) -> str:
    assert f.micro
    system, code = f.micro
    if system == "words":
        return _pick(rng, words.MICRO_WORDS[code])
    if system == "kudo":
        return _pick(rng, ("Kudo type {}", "Kudo {}", "a Kudo {} pit pattern")).format(code)
    return _pick(rng, ("{} type {}", "{} {}")).format(system.upper(), code)


def _appearance(rng: np.random.Generator, f: Finding, subject: str, plural: bool) -> list[str]:
    """Sentences on surface, colour, margin, pattern and secondary features."""
    be = "were" if plural else "was"
    said = []
    if f.surface and f.colour:
        said.append(
            f"The surface was {_surface(rng, f)} and the colour was "
            f"{_pick(rng, words.COLOUR[f.colour[0]])}"
            if rng.random() < 0.4 and not plural and f.colour[0] == "red_hyperaemic"
            else f"{subject} had a {_surface(rng, f)} surface and {be} "
            f"{_pick(rng, words.COLOUR[f.colour[0]])}"
        )
    elif f.surface:
        said.append(
            _pick(rng, ("The surface was {}", f"{subject} had a {{}} surface")).format(
                _surface(rng, f)
            )
        )
    elif f.colour:
        said.append(f"{subject} {be} {_pick(rng, words.COLOUR[f.colour[0]])}")
    if f.margin:
        margin = _pick(rng, words.MARGIN[f.margin])
        said = [f"{said[0]}, with {margin}"] if said else [f"{subject} had {margin}"]
    if f.micro:
        pattern = _micro(f, rng)
        if f.micro[0] in ("nice", "jnet"):
            frame = _pick(rng, ("On NBI the lesion was {}", "NBI: {}", "Classified as {}"))
        else:
            frame = _pick(rng, ("Magnification showed {}", "Close inspection revealed {}"))
        said.append(frame.format(pattern))
    if f.secondary:
        features = _listing([_pick(rng, words.SECONDARY[v]) for v in f.secondary])
        said.append(_pick(rng, ("There was {}", "It showed {}")).format(features))
    if f.absent:
        denied = " or ".join(_pick(rng, words.ABSENT[v]) for v in f.absent)
        said.append(_pick(rng, ("There was no {}", "No {}")).format(denied))
    return [_sentence(s) for s in said]


def _treated(rng: np.random.Generator, f: Finding) -> str:
    return _pick(rng, words.TREATMENT[f.treatment[0]]).format(
        ml=int(rng.integers(3, 12)), n=int(rng.integers(2, 6))
    )


def _treatment(rng: np.random.Generator, f: Finding, subject: str) -> list[str]:
    if not f.treatment:
        return []
    verb = "were" if subject in ("Both", "All", "They") else "was"
    said = [f"{subject} {verb} {_treated(rng, f)}."]
    if "clip" in f.treatment:
        said.append(_sentence(_pick(rng, words.CLIP).format(n=_NUMBERS[int(rng.integers(2, 5))])))
    return said


def _alone(rng: np.random.Generator, f: Finding, voice: Voice) -> str:
    lesion, site = _lesion(rng, f, voice.unit), _site(rng, f)
    subject = "The lesion" if rng.random() < 0.6 else "It"
    appearance = _appearance(rng, f, subject, plural=False)
    if site and rng.random() < (0.6 if voice.style == "dictated" else 0.25):
        opening = f"{site.strip()} there was {lesion}".replace("in the", "In the", 1)
    else:
        seen = _pick(rng, ("was found", "was seen", "was identified", "was noted"))
        opening = f"{lesion} {seen}{site}"
    if f.treatment and not appearance and rng.random() < 0.5:
        fused = f"{opening}{',' if site else ''} and {_treated(rng, f)}"
        if opening.startswith("In the"):
            fused = f"{opening}, which was {_treated(rng, f)}"
        return _sentence(fused)
    return " ".join([_sentence(opening), *appearance, *_treatment(rng, f, "It")])


def _terse(rng: np.random.Generator, f: Finding, voice: Voice) -> str:
    """`Sigmoid colon: 7 mm sessile polyp, smooth surface, NICE 2; removed by cold snare.`"""
    parts = [_lesion(rng, f, voice.unit).split(" ", 1)[1], *_keywords(rng, f)]
    text = ", ".join(parts)
    if f.treatment:
        text += f"; {_treated(rng, f)}"
    if not f.locations:
        return _sentence(text)
    return f"{_heading(rng, f)}: {_sentence(text)}"


def _heading(rng: np.random.Generator, f: Finding) -> str:
    """`Sigmoid colon (32 cm from the anal verge)`."""
    place = _pick(rng, words.SITES[f.locations[0]]).capitalize()
    if f.distance_cm is not None:
        place += f" ({f.distance_cm} cm from the anal verge)"
    return place


def _keywords(rng: np.random.Generator, f: Finding) -> list[str]:
    """The appearance as comma-separated key words."""
    parts = []
    if f.surface:
        parts.append(f"{_surface(rng, f)} surface")
    if f.colour:
        parts.append(_pick(rng, words.COLOUR[f.colour[0]]))
    if f.margin:
        parts.append(_pick(rng, words.MARGIN[f.margin]).removeprefix("an ").removeprefix("a "))
    if f.micro:
        parts.append(_micro(f, rng).removeprefix("an ").removeprefix("a "))
    parts.extend(_pick(rng, words.SECONDARY[v]) for v in f.secondary)
    parts.extend(f"no {_pick(rng, words.ABSENT[v])}" for v in f.absent)
    return parts


def _joint(rng: np.random.Generator, passage: Passage, voice: Voice) -> str:
    """Several lesions in one or two sentences."""
    findings = passage.findings
    f, unit = findings[0], voice.unit
    total = _NUMBERS[len(findings)]
    both = "Both" if len(findings) == 2 else "All"
    sites = [_pick(rng, words.SITES[x.locations[0]]) for x in findings]
    sizes = [_number(x.size_mm[1], unit) for x in findings if x.size_mm]
    adjective, code = _form_parts(rng, f)
    tail = f" ({code})" if code else ""
    polyps = f"{adjective} polyps{tail}".strip()
    if passage.kind == "listed":
        measured = (
            f"each {sizes[0]} {unit}" if len(set(sizes)) == 1 else f"{_listing(sizes)} {unit}"
        )
        opening = f"{total} {polyps}, {measured} in size, were found in the {sites[0]}"
    elif passage.kind == "paired":
        pairs = _listing([f"{s} {unit} in the {p}" for s, p in zip(sizes, sites, strict=True)])
        opening = f"{total} {polyps} were seen: {pairs}"
    else:
        low, high = f.size_mm or (0, 0)
        places = _listing([f"the {p}" for p in sites])
        if low == high:
            measured = f", {_number(high, unit)} {unit} each,"
        else:
            measured = f" of {_number(low, unit)}-{_number(high, unit)} {unit}"
        opening = f"{total} {polyps}{measured} were seen, one each in {places}"
    said = [_sentence(opening)]
    if f.surface:
        said.append(f"{both} had a {_surface(rng, f)} surface.")
    if passage.kind == "listed":
        said.extend(_largest(rng, findings))
    return " ".join([*said, *_treatment(rng, f, both)])


def _largest(rng: np.random.Generator, findings: Sequence[Finding]) -> list[str]:
    """What is said of the largest alone: `The larger one was reddish and NICE type 2.`"""
    f = max(findings, key=lambda x: x.size_mm or (0, 0))
    parts = [f"was {_pick(rng, words.COLOUR[f.colour[0]])}"] if f.colour else []
    if f.micro:
        verb = "was" if f.micro[0] in ("nice", "jnet") else "showed"
        parts.append(f"{verb} {_micro(f, rng)}")
    subject = "The larger one" if len(findings) == 2 else "The largest one"
    return [f"{subject} {' and '.join(parts)}."] if parts else []


def _cluster(rng: np.random.Generator, f: Finding, voice: Voice) -> str:
    number = f"{f.count}-{f.count + 1}"
    amount = _pick(rng, ("Several (approximately {})", "Multiple (about {})", "About {}"))
    adjective, code = _form_parts(rng, f)
    polyps = f"{adjective} polyps".strip() + (f" ({code})" if code else "")
    size = ""
    if f.size_mm:
        low, high = f.size_mm
        units = ("mm", "cm") if low < 10 <= high and rng.random() < 0.3 else (voice.unit,) * 2
        if units[0] != units[1] or rng.random() < 0.5:
            ends = [f"{_number(x, u)} {u}" for x, u in zip((low, high), units, strict=True)]
            size = f" ranging from {ends[0]} to {ends[1]}"
        else:
            size = f" of {_number(low, voice.unit)}-{_number(high, voice.unit)} {voice.unit}"
    places = _listing([f"the {_pick(rng, words.SITES[x])}" for x in f.locations])
    said = [f"{amount.format(number)} {polyps}{size} were scattered in {places}."]
    if f.surface:
        said.append(f"They had a {_surface(rng, f)} surface.")
    return " ".join([*said, *_treatment(rng, f, "They")])


def _table(rng: np.random.Generator, passages: Sequence[Passage], voice: Voice) -> str:
    rows = ["| No. | Site | Size | Type | Appearance | Treatment |"]
    for f in (f for p in passages for f in p.findings):
        size = _measure(rng, *f.size_mm, voice.unit) if f.size_mm else "-"
        if f.size_word:
            size = _pick(rng, words.SIZE_WORDS[f.size_word])
        cells = [
            _heading(rng, f) if f.locations else "-",
            size,
            _sentence(_noun(rng, f))[:-1],
            ", ".join(_keywords(rng, f)) or "-",
            _treated(rng, f) if f.treatment else "-",
        ]
        rows.append(f"| {len(rows)} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def write_findings(rng: np.random.Generator, passages: Sequence[Passage], voice: Voice) -> str:
    """The lesions' part of the findings section in the voice's layout."""
    if voice.style == "table" and all(p.kind != "cluster" for p in passages):
        return _table(rng, passages, voice)
    said, patterns = [], []
    apart = voice.style == "numbered" and rng.random() < 0.4
    for i, p in enumerate(passages, 1):
        f = p.findings[0]
        if p.kind == "cluster":
            said.append(_cluster(rng, f, voice))
        elif p.kind != "alone":
            said.append(_joint(rng, p, voice))
        elif voice.style not in ("terse", "numbered", "table"):
            said.append(_alone(rng, f, voice))
        elif apart and f.micro and f.micro[0] in ("nice", "jnet"):
            said.append(_terse(rng, replace(f, micro=None), voice))
            patterns.append(f"#{i} {_micro(f, rng)}")
        else:
            said.append(_terse(rng, f, voice))
    if voice.style == "numbered":
        lines = [f"{i}. {text}" for i, text in enumerate(said, 1)]
        return "\n".join([*lines, *([f"NBI: {', '.join(patterns)}."] if patterns else [])])
    return ("\n" if voice.style == "terse" else " ").join(said)


def impression(rng: np.random.Generator, findings: Sequence[Finding]) -> list[str]:
    """The closing phrases on the lesions; nothing that the findings do not say."""
    masses = [f for f in findings if f.form == "mass"]
    spreading = [f for f in findings if f.lst]
    rest = sum(f.count for f in findings if f not in masses and f not in spreading)
    said = []
    for f in [*masses, *spreading]:
        organ = words.SITES[f.locations[0]][0] if f.locations else "colon"
        name = (
            _pick(rng, ("Laterally spreading lesion", words.LST_CODES[f.lst])) if f.lst else "Mass"
        )
        said.append(f"{name} of the {organ}, histology awaited")
    if any(f.approximate for f in findings):
        said.append("Multiple colonic polyps")
    elif rest:
        plural = f"Colonic polyps x{rest}" if rng.random() < 0.5 else "Colonic polyps"
        said.append("Colonic polyp" if rest == 1 else plural)
    return said


def spelled(text: str, voice: Voice) -> str:
    """The text with its articles right and in the voice's spelling."""
    text = text.replace(" a uneven", " an uneven")
    if voice.american:
        for british, american in words.AMERICAN:
            text = text.replace(british, american)
    return text
