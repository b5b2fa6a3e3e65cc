"""The train step beside PyTorch: the same weights, batch and mathematics in one process, in turns.

`python launch/benchmark.py --suite=step` trains stage 1 and stage 2 for a few updates: forward,
backward, clipping and AdamW of both towers, on one batch that lies on the device. The peers are
forms of `transformers.CLIPModel` (see `peer.py`), eager and by `torch.compile`; what cannot run
here is named and left out. A ratio is the peer's time over ours in the same turn. Both sides'
losses are compared at every update: a suite in which they differ ends with exit code 1. Each turn
also takes torch's rate of one large product: the time of the model's FLOPs at that rate bounds
what any program could reach. Writes `step.json`.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from endoclip_jax.benchmarks.material import SIZES
from endoclip_jax.benchmarks.timing import (
    Row,
    about,
    choose_device,
    numbers,
    ratio_of,
    seconds_of,
    take_turns,
    usable_cores,
    write_json,
)
from endoclip_jax.data.prompts import SENTENCES
from endoclip_jax.data.tokenizer import load_tokenizer
from endoclip_jax.errors import UserError
from endoclip_jax.models.clip import CLIP, CLIPConfig, initial_params
from endoclip_jax.objectives.dense import ContrastiveLoss, contrastive_loss, two_sentence_loss
from endoclip_jax.records.attributes import NUM_BITS
from endoclip_jax.stages.stage import Loss, at_once, encode_images, encode_texts
from endoclip_jax.training.metrics import StepMetrics
from endoclip_jax.training.optimizer import Schedule, make_optimizer
from endoclip_jax.training.state import TrainState, make_update
from endoclip_jax.training.throughput import model_flops, peak_flops

STAGES = ("stage1", "stage2")
PEERS = ("published", "plain", "shortcuts")
LIMITS = {"float32": 1e-4, "bfloat16": 3e-2}  # relative difference of the losses
_RATE, _WEIGHT_DECAY, _WARMUP = 5e-5, 0.2, 2
_SET_BITS = 0.2
_SIDE = 4096  # of the large product's matrices


@dataclass(frozen=True)
class Work:
    """One train step: what both sides compute.

    Attributes:
      batch: `image` uint8 [b, s, s, 3], `valid` and, in stage 1, `label`, in stage 2 `ids` and the
        attributes `a_v`, `a_t`.
      contrastive: the loss of stage 2.
    """

    stage: str
    config: CLIPConfig
    batch: Mapping[str, np.ndarray]
    sentences: np.ndarray
    dtype: str
    contrastive: ContrastiveLoss = contrastive_loss

    @classmethod
    def drawn(
        cls, stage: str, config: CLIPConfig, rows: int, text_length: int, dtype: str, seed: int
    ) -> Work:
        """Random pixels, texts of half to all of `text_length` tokens, a fifth of the bits."""
        rng = np.random.default_rng(seed)
        size = config.vision.image_size
        batch: dict[str, np.ndarray] = {
            "image": rng.integers(0, 256, (rows, size, size, 3), dtype=np.uint8),
            "valid": np.ones(rows, bool),
        }
        if stage == "stage1":
            batch["label"] = (np.arange(rows) % 2).astype(np.int32)
        else:
            end = rng.integers(text_length // 2, text_length, rows)
            ids = rng.integers(1, config.text.vocab_size - 2, (rows, text_length), dtype=np.int32)
            place = np.arange(text_length)[None, :]
            ids = np.where(place < end[:, None], ids, 0)
            batch["ids"] = np.where(place == end[:, None], config.text.vocab_size - 1, ids)
            batch["ids"] = batch["ids"].astype(np.int32)
            bits = (rng.random((rows, NUM_BITS)) < _SET_BITS).astype(np.float32)
            batch["a_v"] = batch["a_t"] = bits
        return cls(stage, config, batch, load_tokenizer()(list(SENTENCES))[0], dtype)

    def loss(self) -> Loss:
        """As the stage of that name computes it."""
        model = CLIP(self.config, dtype=jnp.dtype(self.dtype).type)

        def images(params: Any, batch: Any) -> jax.Array:
            return encode_images(model, params, batch["image"])

        def pairs(params: Any, batch: Any) -> Any:
            return images(params, batch), encode_texts(model, params, batch["ids"])

        def cleansing(params: Any, v: Any, batch: Any) -> Any:
            texts = encode_texts(model, params, self.sentences)
            scale = params["clip"]["logit_scale"]
            return two_sentence_loss(v, texts, batch["label"], scale, valid=batch["valid"])

        def attunement(params: Any, features: Any, batch: Any) -> Any:
            v, t = features
            return self.contrastive(
                v, t, params["clip"]["logit_scale"], batch["a_v"], batch["a_t"],
                target="morphology", target_norm="l1", valid=batch["valid"],
            )  # fmt: skip

        if self.stage == "stage1":
            return at_once(images, cleansing)
        return at_once(pairs, attunement)


@dataclass
class Side:
    """A program under test: `step` does one update, waits for it and gives the loss before it.

    `ahead` of its updates were made before its first turn, which makes none again.
    """

    step: Callable[[], float]
    losses: list[float] = field(default_factory=list)
    ahead: int = 0

    def __call__(self) -> None:
        if self.ahead:
            self.ahead -= 1
        else:
            self.losses.append(self.step())


def ours(work: Work, params: Mapping[str, Any], schedule: Schedule) -> Side:
    """The update that a run makes."""
    optimizer = make_optimizer(schedule, _WEIGHT_DECAY)
    update = make_update(work.loss(), optimizer)
    batch = jax.device_put(dict(work.batch))
    # A copy of its own: the update gives its arguments' memory away.
    state = TrainState.create(jax.tree.map(jnp.array, dict(params)), optimizer)
    carried: list[Any] = [state, StepMetrics.empty()]

    def step() -> float:
        carried[0], carried[1], loss = update(carried[0], carried[1], batch)
        jax.block_until_ready(carried)
        return float(loss)

    return Side(step)


def theirs(
    work: Work,
    params: Mapping[str, Any],
    peers: Sequence[tuple[str, bool]],
    rates: Sequence[float],
    device: str,
) -> tuple[dict[str, Side], dict[str, str]]:
    """The peers by name, and why any of them cannot be built here.

    Args:
      peers: form, and whether by `torch.compile`.
      rates: learning rate of each update.
    """
    sides: dict[str, Side] = {}
    skipped: dict[str, str] = {}
    for form, compiled in peers:
        name = f"{form}, torch.compile" if compiled else form
        reason = _missing(compiled, device)
        if reason:
            skipped[name] = reason
            continue
        from endoclip_jax.benchmarks import peer  # only here: it needs torch

        options = peer.Options(
            form=form,
            compiled=compiled,
            device="cuda" if device == "gpu" else "cpu",
            dtype=work.dtype,
            rates=rates,
            weight_decay=_WEIGHT_DECAY,
        )
        built = peer.Peer(work.stage, work.config, params, work.batch, work.sentences, options)
        try:
            sides[name] = Side(built.step, [built.step()], ahead=1)
        except RuntimeError as error:  # what torch.compile and its C++ compiler raise
            if not compiled:
                raise
            skipped[name] = f"torch.compile cannot make it here: {str(error).splitlines()[0]}"
    return sides, skipped


def measure(
    work: Work,
    peers: Sequence[tuple[str, bool]],
    pairs: int,
    device: str,
) -> Row:
    """One row of the table: our seconds, each peer's, and the ratios.

    Args:
      peers: form, and whether compiled; those that cannot be built are in `skipped`.
    """
    params = {"clip": initial_params(CLIP(work.config), 0)}
    schedule = Schedule(10 * (_WARMUP + pairs), 1, _RATE)
    rates = [float(schedule(step)) for step in range(_WARMUP + pairs)]
    others, skipped = theirs(work, params, peers, rates, device)
    mine = ours(work, params, schedule)
    sides: dict[str, Callable[[], object]] = {"ours": mine, **others}
    if others:  # then torch is there
        sides["product"] = _large_product(work.dtype, device)
    turns, warming = take_turns(sides, pairs, _WARMUP)
    limit = LIMITS[work.dtype]
    flops = model_flops(work.loss(), params, work.batch)
    rate = flops / float(np.median(turns["ours"][:, 0]))
    peak = peak_flops(jax.devices()[0].device_kind, work.dtype)
    row: Row = {
        "stage": work.stage,
        "batch": len(work.batch["valid"]),
        "text_length": int(work.batch["ids"].shape[1] if "ids" in work.batch else 0)
        or int(work.sentences.shape[1]),
        "dtype": work.dtype,
        "model_flops": flops,
        "flops_per_second": rate,
        "mfu": None if peak is None else rate / peak,
        "warm_up_seconds": warming,
        "ours": seconds_of(turns["ours"]),
        "losses": mine.losses,
        "peers": {},
        "skipped": skipped,
    }
    if others:
        row["product"] = {"side": _SIDE, **seconds_of(turns["product"])}
    for name, side in others.items():
        apart = _apart(mine.losses, side.losses)
        # Our step's seconds, did it nothing but multiply as fast as the large product.
        fastest = turns["product"] * flops / (2 * _SIDE**3)
        row["peers"][name] = {
            "seconds": seconds_of(turns[name]),
            "ratio": ratio_of(turns[name], turns["ours"]),
            "bound": ratio_of(turns[name], fastest),
            "losses": side.losses,
            "loss_difference": apart,
            "same_loss": apart <= limit,
        }
    return row


def main(argv: Sequence[str], out: Path) -> int:
    """Runs the suite; `out` is the default of `--out`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmark.py --suite=step", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=out, help="folder of step.json")
    add("--size", choices=sorted(SIZES), default="vit-b32", help="of the model")
    add("--stages", default=",".join(STAGES))
    add("--batch", default="16,32", help="patients a batch; several, with commas")
    add("--text_length", type=int, default=77, help="tokens of stage 2's texts, both sides")
    add("--device", choices=("cpu", "gpu"), default="cpu")
    add("--dtype", choices=sorted(LIMITS), default="float32")
    add("--peers", default=",".join(PEERS), help=f"of {', '.join(PEERS)}")
    add("--compile", choices=("no", "too", "only"), default="no", help="peers by torch.compile")
    add("--pairs", type=int, default=5, help="turns that count")
    add("--seed", type=int, default=0, help="of the batch")
    add(
        "--threads", type=int, default=usable_cores(),
        help="of torch; XLA takes the cores it may use: give both fewer by taskset",
    )  # fmt: skip
    options = parser.parse_args(argv)
    stages, forms = options.stages.split(","), [x for x in options.peers.split(",") if x]
    for given, known in ((stages, STAGES), (forms, PEERS)):
        if set(given) - set(known):
            raise UserError(f"{', '.join(given)} are not all of {', '.join(known)}")
    config = SIZES[options.size].model
    if not 2 <= options.text_length <= config.text.context_length:
        raise UserError(f"--text_length={options.text_length}: 2 to {config.text.context_length}")
    ways = {"no": [False], "too": [False, True], "only": [True]}[options.compile]
    peers = [(form, compiled) for form in forms for compiled in ways]
    batches = numbers(options.batch, "--batch")
    choose_device(options.device)
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(options.threads)
    results = about(
        "step", size=options.size, device=options.device, torch_threads=options.threads,
        seed=options.seed, rows=[],
    )  # fmt: skip
    for stage in stages:
        for rows in batches:
            work = Work.drawn(stage, config, rows, options.text_length, options.dtype, options.seed)
            row = measure(work, peers, options.pairs, options.device)
            results["rows"].append(row)
            write_json(options.out / "step.json", results)  # an interrupted run leaves what it has
            print(_line(row), flush=True)
    print(f"written to {options.out / 'step.json'}")
    same = all(peer["same_loss"] for row in results["rows"] for peer in row["peers"].values())
    return 0 if same else 1


def _missing(compiled: bool, device: str) -> str:
    """Why a peer cannot run here; empty if it can."""
    for package in ("torch", "transformers"):
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
    import torch

    if device == "gpu" and not torch.cuda.is_available():
        return "this torch computes on no GPU"
    if compiled and device == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        return "torch.compile needs a C++ compiler"
    return ""


def _large_product(dtype: str, device: str) -> Callable[[], object]:
    """Two square matrices by torch's library, the fastest here: what the device can do."""
    import torch

    place = "cuda" if device == "gpu" else "cpu"
    one, other = (
        torch.rand(_SIDE, _SIDE, dtype=getattr(torch, dtype), device=place) for _ in range(2)
    )

    def work() -> None:
        # A number off the device: only then is a GPU done.
        float((one @ other)[0, 0])

    return work


def _apart(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The largest relative difference of the losses."""
    return max(abs(a - b) / abs(a) for a, b in zip(ours, theirs, strict=True))


def _line(row: Row) -> str:
    wall = row["ours"]["wall"]
    cells = [
        f"{row['stage']}, batch {row['batch']}, {row['text_length']} tokens, {row['dtype']}: ours "
        f"{wall['median']:.3f} s ({row['flops_per_second'] / 1e9:.0f} GFLOP/s)"
    ]
    for name, peer in row["peers"].items():
        ratio, cpu = peer["ratio"]["wall"], peer["ratio"]["cpu"]
        cells.append(
            f"  {name}: {ratio['median']:.2f} x ({ratio['low']:.2f} to {ratio['high']:.2f}), "
            f"by processor time {cpu['median']:.2f}, at most {peer['bound']['wall']['median']:.2f}"
            f" x is possible; losses differ by {peer['loss_difference']:.1e}"
        )
    cells += [f"  {name}: left out, {reason}" for name, reason in row["skipped"].items()]
    return "\n".join(cells)
