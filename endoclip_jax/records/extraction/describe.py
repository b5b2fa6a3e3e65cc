"""The English sentence a text tower reads: form, size, site, appearance; at most 40 words.

Written from the item's own facts. It holds no treatment and no diagnosis: those would give the
zero-shot malignancy test its answer.
"""

from __future__ import annotations

from collections.abc import Mapping

from endoclip_jax.records.attributes import SIZE_CLASSES, attribute_bits, bit_values

MAX_WORDS = 40

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_SIZE_WORDS = dict(zip(SIZE_CLASSES, ("diminutive", "small", "large", "giant"), strict=True))
_SITES = {
    "terminal_ileum": "the terminal ileum",
    "ileocecal_valve": "the ileocaecal valve",
    "cecum": "the caecum",
    "ascending_colon": "the ascending colon",
    "hepatic_flexure": "the hepatic flexure",
    "transverse_colon": "the transverse colon",
    "splenic_flexure": "the splenic flexure",
    "descending_colon": "the descending colon",
    "sigmoid_colon": "the sigmoid colon",
    "rectosigmoid_junction": "the rectosigmoid junction",
    "rectum": "the rectum",
    "anal_canal": "the anal canal",
    "anastomosis": "the anastomosis",
    "diffuse": "the whole colon",
}
_FORMS = {
    "protruded": "protruding",
    "flat_elevated": "flat elevated",
    "flat": "flat",
    "depressed": "depressed",
    "mass": "",
}
_ATTACHMENTS = {
    "pedunculated": "pedunculated",
    "subpedunculated": "semi-pedunculated",
    "sessile": "sessile",
}
_SURFACES = {
    "smooth": "smooth",
    "granular": "granular",
    "lobulated_nodular": "lobulated",
    "villous_papillary": "villous",
    "rough_irregular": "rough irregular",
}
_COLOURS = {"pale_whitish": "pale", "red_hyperaemic": "reddish", "dark_brown": "brown"}
_MARGINS = {
    "clear": "a clear margin",
    "indistinct": "an indistinct margin",
    "irregular": "an irregular margin",
}
_PATTERNS = {
    "nonneoplastic_pattern": "a non-neoplastic pattern",
    "regular_neoplastic_pattern": "a regular neoplastic pattern",
    "irregular_pattern": "an irregular pattern",
    "invasive_pattern": "an invasive pattern",
}
_FEATURES = {
    "ulcer_erosion": "ulceration",
    "central_depression": "a central depression",
    "bleeding_friable": "contact bleeding",
    "mucus_cap": "a mucus cap",
    "firm_or_nonlifting": "firm consistency",
    "fold_convergence": "fold convergence",
    "luminal_narrowing": "luminal narrowing",
}


def describe(polyp: Mapping) -> str:
    """One sentence for an item of ``data/schema.json``; its own ``description`` is not read."""
    values = bit_values(attribute_bits(polyp))
    head = _head(polyp, values)
    appearance = _appearance(polyp, values)
    while True:
        sentence = f"{head}{_joined(' with ', appearance)}."
        if len(sentence.split()) <= MAX_WORDS or not appearance:
            return sentence[0].upper() + sentence[1:]
        appearance = appearance[:-1]


def _head(polyp: Mapping, values: Mapping[str, list[str]]) -> str:
    count = polyp["count"]
    noun = _noun(values)
    words = [*_size(polyp, values), *_shape(values), noun if count == 1 else f"{noun}s"]
    if count == 1:
        phrase = f"{_article(words[0])} {' '.join(words)}"
    else:
        number = _NUMBERS[count] if count < len(_NUMBERS) else str(count)
        phrase = f"{'about ' if polyp['count_is_approximate'] else ''}{number} {' '.join(words)}"
    sites = [_SITES[site] for site in polyp["location"]][:4]
    if not sites:
        return phrase
    if sites == [_SITES["diffuse"]]:
        return f"{phrase} throughout the colon"
    return f"{phrase} in {_listed(sites)}"


def _noun(values: Mapping[str, list[str]]) -> str:
    if values["lst_growth"]:
        return "laterally spreading lesion"
    return "mass" if "mass" in values["gross_form"] else "polyp"


def _size(polyp: Mapping, values: Mapping[str, list[str]]) -> list[str]:
    low, high = polyp["size_mm_min"], polyp["size_mm_max"]
    if high is None:
        return [_SIZE_WORDS[value] for value in values["size_class"][:1]]
    if low is not None and low != high and polyp["count"] > 1:
        return [f"{_number(low)} to {_number(high)} mm"]
    return [f"{_number(high)} mm"]


def _shape(values: Mapping[str, list[str]]) -> list[str]:
    growth = values["lst_growth"]
    if growth:
        named = {
            "granular": "granular",
            "non_granular": "non-granular",
            "nodular_mixed": "nodular mixed",
            "pseudodepressed": "pseudodepressed",
        }
        return [named[value] for value in growth if value in named]
    attached = [_ATTACHMENTS[value] for value in values["attachment"]]
    forms = [
        _FORMS[value]
        for value in values["gross_form"]
        if _FORMS[value] and not (value == "protruded" and attached)
    ]
    return [" and ".join([*attached, *forms])] if attached or forms else []


def _appearance(polyp: Mapping, values: Mapping[str, list[str]]) -> list[str]:
    """Phrases after "with", most telling first."""
    phrases = []
    surface = [_SURFACES[value] for value in values["surface"]]
    tint = [_COLOURS[value] for value in values["colour"] if value in _COLOURS]
    if surface:
        adjectives = " and ".join(surface) + (f" {' and '.join(tint)}" if tint else "")
        phrases.append(f"{_article(adjectives)} {adjectives} surface")
    elif tint:
        phrases.append(f"{_article(tint[0])} {' and '.join(tint)} colour")
    phrases += [
        _PATTERNS[value] + (f" ({codes})" if position == 0 and (codes := _codes(polyp)) else "")
        for position, value in enumerate(values["microstructure"])
    ]
    phrases += [_FEATURES[value] for value in values["secondary_features"]]
    phrases += [_MARGINS[value] for value in values["margin"]]
    if "same_as_mucosa" in values["colour"]:
        phrases.append("the colour of the surrounding mucosa")
    return phrases


def _codes(polyp: Mapping) -> str:
    stated = [f"NICE type {polyp['nice']}"] if polyp["nice"] else []
    stated += [f"JNET type {polyp['jnet']}"] if polyp["jnet"] else []
    stated += [f"Kudo type {' and '.join(polyp['kudo'])}"] if polyp["kudo"] else []
    return ", ".join(stated)


def _article(word: str) -> str:
    vowel = word[0] in "aeio" or word.startswith(("8 ", "11 ", "18 ", "8.", "80 "))
    return "an" if vowel else "a"


def _number(value: float | int) -> str:
    return f"{value:g}"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _joined(lead: str, parts: list[str]) -> str:
    return lead + _listed(parts) if parts else ""
