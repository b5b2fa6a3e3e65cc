"""English wording of the synthetic reports: how endoscopists put each fact."""

from __future__ import annotations

SITES = {
    "cecum": ("caecum",),
    "ascending_colon": ("ascending colon",),
    "hepatic_flexure": ("hepatic flexure",),
    "transverse_colon": ("transverse colon", "mid transverse colon"),
    "splenic_flexure": ("splenic flexure",),
    "descending_colon": ("descending colon",),
    "sigmoid_colon": ("sigmoid colon", "sigmoid"),
    "rectum": ("rectum",),
}

FORM_ADJECTIVES = {
    "Is": ("sessile", "sessile", "broad-based"),
    "Isp": ("semi-pedunculated", "subpedunculated"),
    "Ip": ("pedunculated", "pedunculated", "stalked"),
    "IIa": ("flat elevated", "slightly raised", "slightly elevated flat"),
    "IIb": ("completely flat",),
    "IIc": ("depressed", "slightly depressed"),
}
MASS_NOUNS = ("fungating mass", "irregular mass", "exophytic tumour", "mass")
LST_NAMES = {
    "LST": ("laterally spreading tumour", "laterally spreading lesion (LST)"),
    "G": ("laterally spreading tumour, granular type (LST-G)", "LST-G"),
    "NG": ("laterally spreading tumour, non-granular type (LST-NG)", "LST-NG"),
    "G_H": ("granular homogeneous laterally spreading tumour (LST-G-H)", "LST-G-H"),
    "G_NM": (
        "laterally spreading tumour of the granular nodular mixed type",
        "LST-G-NM",
        "granular mixed-nodular laterally spreading lesion (LST-G-NM)",
    ),
    "NG_FE": (
        "non-granular laterally spreading tumour, flat elevated type (LST-NG-FE)",
        "LST-NG-FE",
    ),
    "NG_PD": (
        "non-granular laterally spreading tumour of pseudodepressed type",
        "LST-NG-PD",
    ),
}
SIZE_WORDS = {
    "diminutive_le5mm": ("diminutive", "tiny", "minute"),
    "giant_ge20mm": ("giant", "huge"),
}
SURFACE = {
    "smooth": ("smooth", "smooth", "smooth and glistening"),
    "granular": ("granular", "finely granular"),
    "lobulated_nodular": ("lobulated", "nodular", "multilobulated", "mulberry-like"),
    "villous_papillary": ("villous", "frond-like", "papillary"),
    "rough_irregular": ("rough", "uneven", "coarse and uneven"),
}
COLOUR = {
    "same_as_mucosa": (
        "isochromatic",
        "of the same colour as the surrounding mucosa",
        "similar in colour to the adjacent mucosa",
    ),
    "pale_whitish": ("pale", "whitish", "paler than the surrounding mucosa"),
    "red_hyperaemic": ("reddish", "erythematous", "hyperaemic", "red", "congested"),
    "dark_brown": ("brownish on NBI", "dark brown under NBI", "brown on narrow-band imaging"),
}
MARGIN = {
    ("clear",): ("a clear margin", "well-demarcated borders", "a sharply defined edge"),
    ("indistinct",): ("ill-defined borders", "an indistinct margin", "poorly demarcated edges"),
    ("irregular",): ("an irregular margin", "irregular borders", "a ragged edge"),
    ("clear", "irregular"): (
        "a clear but irregular margin",
        "a well-demarcated, irregular border",
    ),
    ("indistinct", "irregular"): (
        "an ill-defined, irregular margin",
        "irregular and indistinct borders",
    ),
}
MICRO_WORDS = {
    "nonneoplastic_pattern": (
        "uniform round pits without visible vessels",
        "a uniform pattern of round pits and no visible vessels",
    ),
    "regular_neoplastic_pattern": (
        "regular tubular pits",
        "regular vessels surrounding oval pits",
        "a regular branched pit pattern",
    ),
    "irregular_pattern": (
        "an irregular vessel pattern of uneven calibre",
        "irregular vessels and distorted pits",
    ),
    "invasive_pattern": (
        "an amorphous surface with disrupted vessels",
        "a structureless area with interrupted vessels",
    ),
}
SECONDARY = {
    "ulcer_erosion": ("superficial ulceration", "surface erosion", "an ulcer covered with slough"),
    "central_depression": ("a central depression", "a shallow central depression"),
    "bleeding_friable": ("friability with contact bleeding", "bleeding on contact", "oozing"),
    "mucus_cap": ("a mucus cap", "an adherent mucous cap"),
    "firm_or_nonlifting": (
        "a firm consistency",
        "a hard, indurated base",
        "a non-lifting sign on injection",
    ),
    "fold_convergence": ("fold convergence", "converging folds"),
    "luminal_narrowing": ("narrowing of the lumen", "luminal stenosis"),
}
ABSENT = {
    "ulcer_erosion": ("ulceration", "erosion"),
    "central_depression": ("central depression",),
    "bleeding_friable": ("contact bleeding", "friability"),
}
TREATMENT = {
    "forceps_removal": (
        "removed with cold biopsy forceps",
        "removed with jumbo forceps",
    ),
    "cold_snare": ("removed by cold snare and retrieved", "resected with a cold snare"),
    "hot_snare": ("removed by hot snare", "resected with a hot snare and retrieved"),
    "emr": (
        "removed by EMR after submucosal injection of {ml} ml of saline",
        "resected en bloc by EMR",
    ),
    "esd": ("resected en bloc by ESD",),
    "biopsy": ("biopsied (x{n})", "sampled with {n} biopsies"),
}
CLIP = (
    "The defect was closed with {n} clips.",
    "{n} haemostatic clips were placed.",
    "The resection site was clipped and a 2 mm tattoo dot was placed 3 cm distally.",
)
NORMAL = (
    "The remaining mucosa was normal.",
    "The examination was otherwise normal.",
    "No other polyps, masses or ulcers were seen.",
    "Elsewhere the mucosa was smooth with a preserved vascular pattern.",
    "Retroflexion in the rectum was unremarkable.",
    "The terminal ileum appeared normal.",
)
CLEAN = (
    "No polyps, masses or inflammation were seen.",
    "No polyps were identified on careful withdrawal.",
    "There was no evidence of polyp or tumour.",
    "The mucosa of the entire colon was smooth with a normal vascular pattern.",
)
OTHER = {
    "haemorrhoids": (
        "Grade I internal haemorrhoids.",
        "Small internal haemorrhoids were seen on retroflexion.",
    ),
    "diverticula": (
        "Scattered diverticula in the sigmoid colon, without inflammation.",
        "Multiple small-mouthed diverticula were noted in the left colon.",
    ),
    "inflammation": (
        "Patchy erythema and loss of vascular pattern over 8 cm of the sigmoid colon; biopsies"
        " were taken.",
        "Mild proctitis extending 12 cm from the anal verge with granularity and contact bleeding"
        " of the mucosa.",
    ),
    "melanosis": ("Mild melanosis coli.", "Diffuse brown pigmentation of melanosis coli."),
    "angioectasia": ("A single small angioectasia in the caecum, not bleeding.",),
    "submucosal_lesion": (
        "A soft 12 mm submucosal lipoma in the ascending colon with a positive pillow sign.",
    ),
    "anal_papilla": ("A hypertrophied anal papilla was noted.",),
    "lymphoid_hyperplasia": ("Lymphoid follicles in the terminal ileum.",),
    "scar_or_anastomosis": (
        "The previous polypectomy scar in the transverse colon was clean without residual or"
        " recurrent polyp.",
        "A well-healed post-EMR scar was seen in the sigmoid colon; no recurrence.",
    ),
    "pseudopolyps": (
        "A few inflammatory pseudopolyps in the descending colon; these are not polyps and were"
        " left alone.",
    ),
}
DIAGNOSES = {
    "haemorrhoids": "Internal haemorrhoids",
    "diverticula": "Diverticulosis",
    "inflammation": "Mild colitis, biopsied",
    "melanosis": "Melanosis coli",
    "angioectasia": "Caecal angioectasia",
    "submucosal_lesion": "Colonic lipoma",
    "anal_papilla": "Anal papilla",
    "lymphoid_hyperplasia": "Lymphoid hyperplasia of the ileum",
    "scar_or_anastomosis": "Status post polypectomy, no recurrence",
    "pseudopolyps": "Quiescent colitis",
}
INDICATIONS = (
    "Average-risk screening",
    "Positive FIT",
    "Iron deficiency anaemia",
    "Change of bowel habit",
    "Rectal bleeding",
    "Abdominal pain",
    "Family history of colorectal cancer",
)
HISTORY = (
    "A {n} cm sigmoid polyp was removed in {year}.",
    "S/p polypectomy of two caecal polyps in {year}.",
    "Tubular adenoma of the transverse colon resected in {year}.",
    "Previous colonoscopy in {year} showed a {n} mm rectal polyp.",
)
FIRST_NAMES = ("Margaret", "Thomas", "Eleanor", "David", "Amina", "Peter", "Grace", "Samuel",
               "Ingrid", "Marcus", "Helen", "Rajesh")  # fmt: skip
LAST_NAMES = ("Whitfield", "Okafor", "Lindqvist", "Harrison", "Bellamy", "Novak", "Prescott",
              "Fernandes", "Castellan", "Thornbury", "Marlowe", "Desai")  # fmt: skip
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
          "October", "November", "December")  # fmt: skip
AMERICAN = (
    ("haem", "hem"),
    ("Haem", "Hem"),
    ("anaemia", "anemia"),
    ("hyperaemic", "hyperemic"),
    ("colour", "color"),
    ("tumour", "tumor"),
    ("caec", "cec"),
    ("Caec", "Cec"),
    ("calibre", "caliber"),
)
INTERVALS = ("1 year", "3 years", "5 years", "10 years")
LST_CODES = {
    "LST": "LST",
    "G": "LST-G",
    "NG": "LST-NG",
    "G_H": "LST-G-H",
    "G_NM": "LST-G-NM",
    "NG_FE": "LST-NG-FE",
    "NG_PD": "LST-NG-PD",
}
