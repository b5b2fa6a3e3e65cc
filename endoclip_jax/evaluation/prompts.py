"""The sentences a zero-shot score is made from: data, fixed before any test set was looked at.

Detection uses the two sentences that stage 1 trains on (Endo-CLIP, section 2.1). Malignancy here
means *non-neoplastic against adenoma or worse* (Vienna 1 against 3, 4, 5; Vienna 2 is left out), so
words of cancer would ask the wrong question. Three sets, always reported side by side:

P0  the naive pair;
P1  the same pair in the words of pathology;
P2  ensembles in the style of the descriptions that the text tower has been trained on. They are
    written from what guidelines say of the two classes (NICE and JNET tables: pale, flat, mucus
    cap, indistinct border; red, lobulated, villous, stalked, laterally spreading, ulcerated), and
    both span small and larger lesions, so that size alone does not decide.
"""

from __future__ import annotations

from dataclasses import dataclass

from endoclip_jax.data.prompts import BACKGROUND, POLYPS


@dataclass(frozen=True)
class DetectionPrompts:
    """The standardised sentence of a patient with and without a polyp."""

    polyp: str
    background: str


@dataclass(frozen=True)
class MalignancyPrompts:
    """One prompt set: the sentences of each class, averaged as unit text features."""

    name: str
    benign: tuple[str, ...]
    malignant: tuple[str, ...]


DETECTION = DetectionPrompts(polyp=POLYPS, background=BACKGROUND)

P0 = MalignancyPrompts(
    name="P0",
    benign=("This is a benign polyp.",),
    malignant=("This is a malignant polyp.",),
)

P1 = MalignancyPrompts(
    name="P1",
    benign=("This is a non-neoplastic hyperplastic polyp.",),
    malignant=("This is a neoplastic polyp, adenoma or carcinoma.",),
)

P2 = MalignancyPrompts(
    name="P2",
    benign=(
        "A diminutive pale sessile polyp with a smooth surface, similar in colour to the "
        "surrounding mucosa, with a non-neoplastic pattern (NICE type 1).",
        "A 3 mm sessile polyp with a smooth pale surface and a non-neoplastic pattern "
        "(NICE type 1).",
        "A 4 mm flat elevated polyp of the same colour as the surrounding mucosa, with a smooth "
        "surface and a non-neoplastic pattern (JNET type 1).",
        "A small whitish flat elevated polyp with a smooth surface and a clear margin, with a "
        "non-neoplastic pattern (NICE type 1).",
        "A 7 mm pale flat elevated polyp with a mucus cap and an indistinct margin, with a "
        "non-neoplastic pattern (NICE type 1).",
    ),
    malignant=(
        "A large red lobulated polyp with a clear margin and a regular neoplastic pattern "
        "(NICE type 2).",
        "An irregular depressed lesion with ulceration and an invasive pattern (NICE type 3).",
        "A 4 mm red sessile polyp with a clear margin and a regular neoplastic pattern "
        "(NICE type 2).",
        "A 12 mm pedunculated polyp with a reddish lobulated surface and a regular neoplastic "
        "pattern (JNET type 2A).",
        "A 25 mm granular laterally spreading lesion with a clear margin and a regular neoplastic "
        "pattern (NICE type 2).",
        "A 15 mm red sessile polyp with a villous surface and an irregular pattern (JNET type 2B).",
        "A large mass with a rough irregular surface, ulcerated and bleeding on contact, with an "
        "irregular margin and an invasive pattern (NICE type 3).",
    ),
)

MALIGNANCY: dict[str, MalignancyPrompts] = {prompts.name: prompts for prompts in (P0, P1, P2)}

HEADLINE = P2.name
