"""The report's standing words: what was done, how to read a number, what a figure does not show.

They are kept apart from the code that composes the page so that a clinician can correct them.
"""

from __future__ import annotations

TASKS = {
    "detection": "Does this frame show a polyp?",
    "malignancy": "Is this polyp non-neoplastic, or adenoma or worse?",
}

PAIRS = {
    "detection": ("one frame with a polyp and one without", "the polyp"),
    "malignancy": ("one adenoma (or worse) and one non-neoplastic polyp", "the adenoma"),
}
"""The random pair that an AUROC is about, and its rightful winner."""

WHAT_WAS_DONE = (
    "A colonoscopy leaves dozens of frames and one report. Endo-CLIP learns from such pairs, "
    "without anybody labelling a frame, in three stages: it first learns which frames show a polyp "
    "and drops the rest (cleansing), then ties the frames of patients with one polyp to the words "
    "that describe it (attunement), then lets the frames and sentences of patients with several "
    "polyps find each other (unification)."
)

MEANING_OF_SYNTHETIC = (
    "The patients, frames and reports of this demonstration were drawn by a program. The figures "
    "show that the method runs and learns; they say nothing about patients, and nothing about how "
    "it would do on real examinations."
)

CHOOSING_FRAMES = (
    "Stage 1 is never told which frames show the polyp: it only knows which examinations have one. "
    "From each it keeps the frames that look most like “This is a colon with polyps.”, and the "
    "later stages train on these alone. Where the truth of the frames is known, the choice can be "
    "checked. It was not used in training."
)

HOW_TO_READ = (
    "AUROC: take one positive and one negative at random; AUROC is how often the positive gets the "
    "higher score. 0.5 is a coin, 1 is perfect; it does not depend on how rare the positives are.",
    "AUPR: the precision, averaged over all sensitivities. Its chance level is the share of "
    "positives, so 0.90 is poor where 88 % are positive and excellent where 5 % are. Compare it "
    "with the last line of its table, never with 0.5.",
    "{baseline}: the same towers trained on the same patients for as many updates in CLIP's plain "
    "way, every frame with its whole report. Only against it do the numbers mean anything. "
    "“Untrained” is the same model before any training, “CLIP (pre-trained)” CLIP's published "
    "weights as loaded, where these are listed.",
    "An interval tells how the value would move with other test patients. How it would move if the "
    "model were trained again is another matter: use other seeds.",
    "For orientation only: on its own patients, from CLIP's published weights, the paper reports "
    "AUROC 0.764 and AUPR 0.456 for zero-shot detection, 0.728 and 0.921 for malignancy (16 "
    "against 68 polyps). Other data; the numbers do not compare.",
)

MEANING_OF_MALIGNANT = (
    "“Malignancy” here means: non-neoplastic (Vienna 1) against adenoma or worse (Vienna 3, 4 and "
    "5); Vienna 2, indefinite, is excluded. Most of the “malignant” class are ordinary low-grade "
    "adenomas. It is not a test for cancer."
)

READING_PATIENTS = (
    "Pick an examination that the model was not trained on. Below each frame: the probability "
    "that it shows a polyp (stage 1, not calibrated), whether stage 1 kept it, and what it truly "
    "shows where that is known. Below the frames: what stage 3 attends to. These patients are "
    "examples; the tables have the rates."
)

MODEL_CARD: dict[str, tuple[str, ...]] = {
    "Meant for": (
        "Research on learning from colonoscopy records: embeddings of frames and of English "
        "descriptions, choosing the frames of an examination that are worth looking at, studies of "
        "zero-shot and few-label classification.",
    ),
    "Not meant for": (
        "Any decision about a patient: finding polyps during an examination, leaving one in place, "
        "or replacing histology. It has not been tested for that, and is no medical device.",
        "Frames of other organs, capsule endoscopy, or imaging modes that were not in its data.",
        "Telling cancer from adenoma: its “malignant” class is adenoma or worse.",
    ),
    "Known limits": (
        "It never saw a labelled frame: about half of the frames that it took for polyps in "
        "training may show none.",
        "It has learnt the habits of the reports it was trained on: what was not written down was "
        "not learnt, and other centres write otherwise.",
        "Its probabilities are not calibrated; “Calibration” shows by how much.",
        "How it does on rare lesions, rare preparations and small groups of patients is unknown: "
        "too few of them are in the test set to say.",
    ),
}
"""Standing sentences of the model card by heading."""

FIGURES: dict[str, tuple[str, str, str]] = {
    "selection_sheet": (
        "Frames kept and dropped",
        "Each picture carries its score (higher = more like “This is a colon with polyps.”) and "
        "what it truly shows; an orange frame marks a polyp. Polyps should gather among the kept.",
        "These are a few examinations, not a sample: the table above has the rate over all of "
        "them. A kept frame without a polyp is expected, since every patient must keep some frame.",
    ),
    "score_histograms": (
        "Scores by truth, before and after the second round",
        "The further the hatched hill (frames with a polyp) stands to the right of the plain one, "
        "the better the frames are told apart. Each hill is drawn in per cent of its own class.",
        "The hills have equal areas, the classes do not: frames without a polyp are far more "
        "numerous, so even a small overlap costs many false alarms. The score is no probability.",
    ),
    "roc_detection": (
        "Detection: trade-off between sensitivity and false alarms",
        "Left: the nearer to the upper left corner the better. Right: the share of true polyps "
        "among the frames flagged, as more and more of them are to be found. Dotted: chance.",
        "No operating point was chosen or tested, so no sensitivity on this curve is a promise.",
    ),
    "roc_malignancy": (
        "Malignancy: trade-off between sensitivity and false alarms",
        "As above, one point for each polyp. The right panel starts high because most polyps are "
        "adenomas: chance (dotted) is already there.",
        "No operating point was chosen or tested. A “resect and discard” decision needs far more.",
    ),
    "tsne": (
        "How the models arrange the same polyps",
        "Every point is the picture of one polyp. Green circles: non-neoplastic; orange-red "
        "triangles: adenoma or worse. A model that has learnt morphology keeps them apart without "
        "being told.",
        "t-SNE bends distances: sizes of groups, gaps between them and their places mean nothing, "
        "panels cannot be compared point by point. Trust the AUROC, not the picture.",
    ),
    "tsne_stages": (
        "The same polyps after each stage",
        "The same points as above, as the encoder of each stage places them: does malignancy, "
        "which no stage was told, come apart on the way?",
        "t-SNE bends distances, and each panel is bent in its own way. Trust the AUROC.",
    ),
    "attributes": (
        "What the arrangement follows",
        "One arrangement of the test patients' polyps, a panel an attribute of their description. "
        "Where a colour and mark gather, the encoder has sorted by that attribute. Grey: the "
        "report does not say.",
        "Attributes go together (large polyps are often lobulated), so a panel can show order that "
        "another attribute made.",
    ),
    "calibration_detection": (
        "Detection: are the probabilities right?",
        "On the dotted line, of frames given a probability of 0.2 one in five shows a polyp. "
        "“Temperature” and “Platt” are recalibrated on other patients' labels. Axes are stretched "
        "near zero, where most frames lie.",
        "The recalibrated curves needed labels: out of the box the probabilities are those “as "
        "trained”. With another prevalence the offset is wrong again.",
    ),
    "calibration_malignancy": (
        "Malignancy: are the probabilities right?",
        "As above, for adenoma or worse.",
        "Few non-neoplastic polyps: each mark rests on few patients, and its place is uncertain.",
    ),
    "attention": (
        "Which frame reads which sentence",
        "A patient with several polyps. Each column is a kept frame, each row a sentence of the "
        "report; the number is the share of the frame's attention that the sentence gets, so each "
        "column adds up to 1. Above each frame: which polyp it truly shows (– none, ? unknown).",
        "Attention tells what was mixed into the result, not why; a high weight is no proof that "
        "the sentence describes the frame. One patient is an illustration, not evidence.",
    ),
    "training_curves": (
        "Training curves",
        "The loss cannot go below the dashed floor (the entropy of its target: several patients "
        "of a batch share a description). What training can remove is the shaded part. Validation "
        "has smaller batches and so a lower floor, dotted.",
        "Losses of different stages or batch sizes have different floors and do not compare.",
    ),
}
"""Heading, what to see and what not to conclude of each figure that the report knows by name."""
