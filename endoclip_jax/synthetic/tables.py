"""The numbers of the embedded cohort: how often a lesion, an examination, a report looks how.

Sources: the size, Vienna and form tables follow large published polyp series (Turner & Genta 2015,
550,811 polyps; 22,174 Chinese polyps for Paris types and sites; Bogie 2018 for laterally spreading
tumours; NICE operating points); the counts of examinations follow Endo-CLIP. What no source gives
(mention rates, some sites, the share of narrow-band images) is an assumption, open to tuning.
"""

from __future__ import annotations

import numpy as np

SIZE_CLASSES = ("diminutive_le5mm", "small_6_9mm", "large_10_19mm", "giant_ge20mm")
FORMS = ("Is", "Isp", "Ip", "IIa", "IIb", "IIc", "LST", "mass")
LST_TYPES = ("G_H", "G_NM", "NG_FE", "NG_PD")
VIENNA = (1, 3, 4, 5)
"""Revised Vienna classes that occur: non-neoplastic, low-grade, high-grade, invasive; not 2."""

# --- lesions -----------------------------------------------------------------------------------

P_SIZE = np.array([0.58, 0.23, 0.14, 0.05])

P_VIENNA_GIVEN_SIZE = np.array(
    [
        [0.42, 0.56, 0.018, 0.002],
        [0.22, 0.74, 0.036, 0.004],
        [0.12, 0.68, 0.165, 0.035],
        [0.04, 0.46, 0.33, 0.17],
    ]
)

SIZE_MM = (
    ((2, 3, 4, 5), (0.20, 0.32, 0.25, 0.23)),
    ((6, 7, 8, 9), (0.40, 0.20, 0.30, 0.10)),
    ((10, 11, 12, 13, 14, 15, 16, 18), (0.26, 0.07, 0.20, 0.07, 0.06, 0.20, 0.07, 0.07)),
    ((20, 22, 25, 28, 30, 35, 40, 50, 60), (0.24, 0.08, 0.18, 0.07, 0.17, 0.09, 0.09, 0.05, 0.03)),
)
"""Diameters in mm inside each size class, with the digit preference of endoscopists."""

_FORM_GIVEN_SIZE = np.array(
    [
        [0.63, 0.06, 0.03, 0.265, 0.010, 0.005, 0.00, 0.0],
        [0.60, 0.10, 0.09, 0.198, 0.004, 0.008, 0.00, 0.0],
        [0.45, 0.12, 0.21, 0.090, 0.002, 0.018, 0.11, 0.0],
        [0.24, 0.06, 0.22, 0.020, 0.000, 0.030, 0.43, 0.0],
    ]
)
_FORM_FACTOR = {
    1: (0.95, 0.6, 0.4, 1.5, 2.0, 0.15, 0.5, 0.0),
    3: (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0),
    4: (1.0, 1.3, 1.3, 0.7, 0.5, 3.0, 1.3, 0.0),
    5: (0.7, 0.6, 0.5, 0.4, 0.2, 9.0, 0.9, 0.0),
}
_MASS_OF_INVASIVE = (0.0, 0.05, 0.25, 0.55)


def form_probabilities(size_class: int, vienna: int) -> np.ndarray:
    """P(form | size class, Vienna), float64[8] in the order of `FORMS`; a mass is invasive."""
    p = _FORM_GIVEN_SIZE[size_class] * np.array(_FORM_FACTOR[vienna])
    p /= p.sum()
    if vienna == 5:
        mass = _MASS_OF_INVASIVE[size_class]
        p *= 1.0 - mass
        p[FORMS.index("mass")] = mass
    return p


P_DEPRESSED_WITH_ELEVATION = 0.7
"""Of 0-IIc lesions, the share that is 0-IIa+IIc."""

P_LST = {
    1: (0.15, 0.02, 0.80, 0.03),
    3: (0.45, 0.22, 0.29, 0.04),
    4: (0.22, 0.45, 0.22, 0.11),
    5: (0.02, 0.42, 0.21, 0.35),
}
P_SURFACE = {
    1: (0.76, 0.08, 0.07, 0.02, 0.09),
    3: (0.56, 0.13, 0.21, 0.04, 0.11),
    4: (0.24, 0.16, 0.36, 0.18, 0.24),
    5: (0.06, 0.08, 0.25, 0.16, 0.62),
}
P_COLOUR = {
    1: (0.46, 0.28, 0.22, 0.04),
    3: (0.32, 0.07, 0.52, 0.09),
    4: (0.14, 0.06, 0.66, 0.14),
    5: (0.05, 0.09, 0.68, 0.18),
}
P_MARGIN = {
    1: (0.62, 0.28, 0.06),
    3: (0.80, 0.12, 0.08),
    4: (0.70, 0.12, 0.25),
    5: (0.38, 0.20, 0.62),
}
P_MICROSTRUCTURE = {
    1: (0.86, 0.14, 0.0, 0.0),
    3: (0.02, 0.92, 0.055, 0.005),
    4: (0.0, 0.42, 0.54, 0.04),
    5: (0.0, 0.06, 0.36, 0.58),
}
P_SECONDARY = {
    1: (0.01, 0.01, 0.01, 0.10, 0.0, 0.0, 0.0),
    3: (0.03, 0.03, 0.03, 0.02, 0.005, 0.005, 0.0),
    4: (0.12, 0.12, 0.12, 0.01, 0.08, 0.06, 0.01),
    5: (0.55, 0.35, 0.45, 0.01, 0.50, 0.30, 0.25),
}

LOCATIONS = (
    "cecum",
    "ascending_colon",
    "hepatic_flexure",
    "transverse_colon",
    "splenic_flexure",
    "descending_colon",
    "sigmoid_colon",
    "rectum",
)
P_LOCATION = np.array([0.052, 0.175, 0.04, 0.186, 0.03, 0.13, 0.247, 0.14])
P_LOCATION_LST = np.array([0.12, 0.246, 0.06, 0.17, 0.03, 0.069, 0.10, 0.205])
RIGHT_COLON = np.array([True, True, True, False, False, False, False, False])
RECTOSIGMOID = np.array([False, False, False, False, False, False, True, True])
HYPERPLASTIC_RECTOSIGMOID_FACTOR = 1.8
SERRATED_RIGHT_FACTOR = 3.0
"""How much oftener a flat Vienna-1 lesion with a mucus cap (serrated) lies on the right."""

# --- examinations ------------------------------------------------------------------------------

POSITIVE_SHARE = 0.446
P_POLYPS = np.array([0.57, 0.27, 0.10, 0.04, 0.015, 0.005])
"""P(1 .. 6 polyps) in a positive examination; mean 1.68, 43 % with more than one."""
POLYP_FRAME_BETA = (1.7, 6.3)
POLYP_FRAME_SHARE = 1.7 / 8.0
LARGE_POLYP_FRAME_FACTOR = 1.4
"""A polyp of 10 mm or more is photographed that much more often."""
NBI_SHARE_POLYP = 0.15
NBI_SHARE_OTHER = 0.02

# --- the labelled polyps of the malignancy test --------------------------------------------------

BENIGN_SHARE_LABELLED = 0.2
P_VIENNA_LABELLED_MALIGNANT = {3: 48 / 68, 4: 15.6 / 68, 5: 4.4 / 68}
"""16 benign to 68 in Endo-CLIP, about 20 of the 68 advanced, 4 to 5 as in the tables above."""
NBI_SHARE_LABELLED = 0.38
"""Of the images clinicians pick as the most telling one (share in PICCOLO, a picked set)."""

# --- reports -----------------------------------------------------------------------------------

CHINESE_SHARE = 0.4
P_MENTION = {
    "size_class": 0.93,
    "gross_form": 0.80,
    "attachment": 0.80,
    "lst_growth": 0.95,
    "surface": 0.55,
    "colour": 0.35,
    "margin": 0.12,
    "microstructure": 0.18,
    "secondary_features": 0.85,
}
"""Chance that a routine report says anything of the aspect; form and attachment go together."""
