"""All keys and their defaults: the paper's numbers; under `demo` what the demonstration changes.

`preset` decides: `paper` takes the numbers as they stand, `demo` lays `config.demo` over them, and
`auto` is `demo` when no shards are given and `paper` when they are. A key set on the command line
always wins. Sources: method.md's letters in brackets refer to the notes on the paper's ambiguities.
"""

from ml_collections import ConfigDict

CLIP_LOGIT_SCALE = "2.6592600369327783"  # log(1 / 0.07); `keep` leaves what the stage starts from


def _stage(**values) -> ConfigDict:
    """What every stage has: 100 epochs, 50 of them warm-up, AdamW at 5e-5 (k, p)."""
    stage = ConfigDict(
        {
            "epochs": 100,
            "warmup_epochs": 50,
            "global_batch": 256,
            "accumulate": 1,  # parts of a batch whose activations are in memory one by one
            "learning_rate": 5e-5,
            "weight_decay": 0.2,
            "logit_scale_init": CLIP_LOGIT_SCALE,
            "best_metric": "excess",  # validation metric that picks the checkpoint; `step`: newest
            "best_is_larger": False,
        }
    )
    stage.update(values)
    return stage


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.goal = "pipeline"  # stage1, stage2, stage3, pipeline, dino, sscd or table
    config.preset = "auto"
    config.seed = 0
    config.workdir = ""  # default: runs/default beside launch/
    config.dtype = "bfloat16"  # of the products inside the towers; float32 everywhere else
    # What the backward pass computes again instead of keeping: none, full (each block from its
    # input), dots (all but the matrix products).
    config.remat = "none"
    # Devices along each axis, -1: what is left. fsdp also splits parameters and optimizer state,
    # model splits the matrices of MLPs and attention.
    config.mesh = ConfigDict({"data": -1, "fsdp": 1, "model": 1})

    config.data = ConfigDict({"shards": "", "split": "train"})
    # Weights to start from; and of a ResNet-50, for Table 1's row ImageNet.
    config.init = ConfigDict({"clip": "", "resnet": ""})
    config.attributes = ConfigDict(
        {
            "include_location": False,
            # Errors added to the attributes that stages 2 and 3 learn from, to see what
            # extraction errors cost: shares of the set bits lost, of all bits inverted.
            "noise_drop": 0.0,
            "noise_flip": 0.0,
        }
    )
    config.loss = ConfigDict(
        {
            "implementation": "auto",  # or dense, streaming; auto: streaming where dense is large
            "temperature": "learned",  # or none, or a number
        }
    )

    config.model = ConfigDict(
        {
            "vision": {
                "image_size": 224,
                "patch_size": 32,
                "width": 768,
                "layers": 12,
                "heads": 12,
            },
            "text": {
                "vocab_size": 49408,
                "context_length": 77,
                "width": 512,
                "layers": 12,
                "heads": 8,
            },
            "embed_dim": 512,
            "activation": "quick_gelu",
            "layer_norm_eps": 1e-5,
        }
    )

    config.stage1 = _stage(
        rho=0.21,  # share of frames that show a polyp, in positive patients (e)
        selection="per_patient",  # or pooled, pooled_floor1
        target="onehot",  # or multi_positive, the same loss here: recorded, and no more (d)
        freeze_text=False,  # (q)
        logit_scale_init="keep",  # CLIP's checkpoint knows it; log(1/0.07) without one (a)
        best_metric="patient_auroc",
        best_is_larger=True,
    )
    config.stage2 = _stage(
        target="morphology",  # or onehot: the ablation "without MC"
        target_norm="l1",  # or none, power(p), softmax(tau) (b)
        text_init="stage1",  # or clip (q)
    )
    config.stage3 = _stage(
        global_batch=64,
        start="stage2",  # or stage1: multi-polyp patients without the single-polyp stage
        target="morphology",
        target_norm="l1",
        attention="literal",  # or pairwise, none (g)
        qk_norm=True,
        residual=False,
        max_images=16,
        max_texts=8,
        include_single=False,  # (m)
    )
    # The baseline trained on the same patients, for as many updates as the three stages together.
    config.clip = _stage(logit_scale_init="keep")
    # The baselines without text; in a table for as many updates as the three stages together.
    # Published numbers, but for the optimizer, which is this project's (DINO: AdamW as well, decay
    # .04 rising to .4; SSCD: LARS), and SSCD's weight, which its authors set to 30 for their
    # ResNet and advise to lower for another.
    config.dino = _stage(
        learning_rate=5e-4,
        warmup_epochs=10,
        weight_decay=0.04,
        logit_scale_init="keep",
        best_metric="step",  # a teacher sets its own target: no loss of it ranks checkpoints
        best_is_larger=True,
        prototypes=65536,
        hidden=2048,
        bottleneck=256,
        local_crops=8,
        local_size=96,
        momentum=0.996,
        temperature=0.04,
        temperature_start=0.04,
        temperature_epochs=0,
        frozen_epochs=1,
    )
    config.sscd = _stage(
        learning_rate=5e-4,
        warmup_epochs=5,
        weight_decay=1e-6,
        logit_scale_init="keep",
        best_metric="step",
        best_is_larger=True,
        temperature=0.05,
        entropy_weight=10.0,
        mix_odds=0.05,
    )

    config.log = ConfigDict(
        {
            "every_steps": 20,
            "validate_epochs": 10,
            "save_epochs": 10,
            "profile": 0,  # steps of each stage to write a trace of; also --profile=N
        }
    )
    config.eval = ConfigDict(
        {
            "detection": "",  # folder of labelled frames; default: the test split's own truth
            "malignancy": "",  # folder of labelled frames with Vienna classes
            "bootstrap_draws": 1000,
            "few_shot": True,
            "resnet_size": 224,  # side of the images that Table 1's ResNets read
        }
    )

    # Goal `table`: rows of a table over seeds; configs/table1.py and its like fill it in.
    config.table = ConfigDict(
        {
            "name": "",  # of its files in the workdir
            "title": "",
            "seeds": (0, 1, 2, 3, 4),
            # of the demonstration: `shared` is one cohort, where the seed changes initialisation
            # and batches; `per_seed` draws the patients anew as well
            "cohort": "shared",
            # of the demonstration: malignancy is judged on so many polyps of patients drawn for
            # this table alone; 0: on those of the cohort, as every other table
            "fresh_polyps": 0,
            "only": "",  # names of rows, separated by semicolons; default: all
            "columns": (),
            "rows": (),
            "claims": (),
            "leak": False,
            "arranged": (),  # rows whose models arrange the polyps side by side (Figure 3)
        }
    )

    # Several processes: docs/clusters.md. Alone when nothing says otherwise.
    config.distributed = ConfigDict(
        {
            "cluster": "auto",  # or none, explicit, slurm, kubernetes, tpu, mpi
            "coordinator": "",  # host:port of process 0
            "num_processes": 0,
            "process_id": -1,
            "init_timeout_s": 300,  # for all processes to come
            "heartbeat_s": 100,  # a process silent for so long is lost
            "step_limit_s": 1800,  # a longer step ends the job; 0: never; the first may take 10 x
        }
    )
    config.scoring = ConfigDict({"chunk": 16384})  # frames scored between two savings

    # The embedded cohort of the demonstration: examinations of each split, frames of each
    # examination, single frames of further test polyps; frames are stored near their use.
    config.cohort = ConfigDict(
        {"train": 1000, "validation": 100, "test": 250, "frames": 12, "polyps": 400, "side": 128}
    )

    config.demo = ConfigDict(
        {
            "dtype": "float32",
            "model": {
                "vision": {
                    "image_size": 32,
                    "patch_size": 8,
                    "width": 128,
                    "layers": 2,
                    "heads": 16,
                },
                "text": {"width": 64, "layers": 1, "heads": 8},
                "embed_dim": 64,
            },
            "stage1": {
                "epochs": 36,
                "warmup_epochs": 4,
                "global_batch": 64,
                "learning_rate": 5e-4,
                "freeze_text": True,  # trained from scratch on two sentences it collapses
            },
            "stage2": {
                "epochs": 50,
                "warmup_epochs": 5,
                "global_batch": 64,
                "learning_rate": 2e-4,
                "target_norm": "power(4)",  # l1's flat targets teach a small model little
                "best_metric": "step",  # few held-out patients: too few to choose by
                "best_is_larger": True,
            },
            "stage3": {
                "include_single": True,  # the multi-polyp patients alone are too few to learn from
                "epochs": 20,
                "warmup_epochs": 2,
                "global_batch": 32,
                "learning_rate": 2e-4,
                "target_norm": "power(4)",
                "best_metric": "step",
                "best_is_larger": True,
            },
            "clip": {"warmup_epochs": 10, "global_batch": 64, "learning_rate": 5e-4},
            "dino": {
                "global_batch": 64,
                "prototypes": 1024,
                "hidden": 256,
                "bottleneck": 64,
                "local_crops": 4,
                "local_size": 16,
            },
            "sscd": {"global_batch": 64, "entropy_weight": 3.0},  # table1.py:search
            "eval": {"resnet_size": 64},
        }
    )
    return config
