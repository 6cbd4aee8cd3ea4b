"""What a pair of runs shows, in words. Every number in them is a field of comparison.json."""

import re
from typing import Any

from ddpm_shared.compare.gaps import FIRST_STEPS, FORMATS, START_STEPS, THRESHOLD

Record = dict[str, Any]

FRAMEWORKS = {"torch": "PyTorch", "tensorflow": "TensorFlow"}
# The kinds of verdict, each with the few words that stand beside it.
KINDS = {
    "identical": "equal to the last bit",
    "rounding": "equal to rounding",
    "amplified": "equal at first, then rounding grows",
    "validation": "only validation differs",
    "jump": "a sudden jump",
    "apart": "apart from the start",
    "unknown": "the start is not on record",
}


def name(run: Record) -> str:
    """A run's name in a sentence, e.g. "TensorFlow (B)"."""
    return f"{FRAMEWORKS[run['framework']]} ({run['label']})"


def gap(value: float) -> str:
    """A gap to two digits: in per cent from 0.1 % on, e.g. "3.2 %", and below as "5.9e-6"."""
    if value == 0:
        return "0"
    return f"{_plain(100 * value)} %" if value >= 1e-3 else _scientific(value)


def loss(value: float) -> str:
    """A loss to four digits, e.g. "0.04973"."""
    return f"{value:.4g}"


def factor(value: float) -> str:
    """A ratio to two digits, e.g. "3200" or "1.4e5"."""
    return _plain(value) if value < 1e5 else _scientific(value)


def _plain(value: float) -> str:
    return f"{float(f'{value:.2g}'):.15g}"


def _scientific(value: float) -> str:
    return re.sub(r"e([+-])0?", lambda found: "e-" if found[1] == "-" else "e", f"{value:.1e}")


def judge(pair: Record, a: Record, b: Record) -> Record:
    """The verdict on a pair.

    Args:
        pair: the pair's record in comparison.json, but for its verdict.
        a: the baseline's summary in comparison.json.
        b: the other run's.

    Returns:
        {"kind": one of KINDS, "lead": the finding, "details": more sentences}.
    """
    kind = kind_of(pair)
    parts = [_cause(kind, pair), _gradients(kind, pair), _validation(kind, pair)]
    parts += [_lengths(pair, a, b), *(_status(run) for run in (a, b)), _shortness(kind, pair), _set_up(kind, pair)]
    lead = _opening(kind, pair, f"{name(b)} and {name(a)}")
    return {"kind": kind, "lead": lead, "details": " ".join(filter(None, parts))}


def words(pair: Record) -> str:
    """A pair's whole verdict."""
    return f"{pair['verdict']['lead']} {pair['verdict']['details']}".strip()


def kind_of(pair: Record) -> str:
    """Which of KINDS the numbers are."""
    losses, gradients = pair["loss"], pair["grad_norm"]
    jumps = [found["step"] for found in (losses["jump"], gradients["jump"]) if found]
    beyond = losses["beyond_rounding"]
    if losses["max"] == gradients["max"] == 0 and not any(row["validation_loss_gap"] for row in pair["epochs"]):
        return "identical"
    if pair["first_common_step"] > START_STEPS and beyond:
        return "unknown"
    if min([*jumps, *([beyond["step"]] if beyond else [])], default=START_STEPS + 1) <= START_STEPS:
        return "apart"
    if jumps:
        return "jump"
    if pair["odd_validation"]:
        return "validation"
    return "amplified" if beyond else "rounding"


def _opening(kind: str, pair: Record, both: str) -> str:
    losses, steps, alike = pair["loss"], pair["common_steps"], pair["loss"]["leading_steps_within_rounding"]
    rounding = f"{FORMATS[pair['rounding']['precision']]} rounding"
    most = f"{gap(losses['max'])} at most (step {losses['max_at_step']})"
    plural = "step" if steps == 1 else "steps"
    equal = f"{losses['equal_steps']} of the {steps} losses are equal to the last bit"
    match kind:
        case "identical":
            every = f"all {steps} common steps" if steps > 1 else "the one common step"
            validated = any(row["validation_loss_gap"] == 0 for row in pair["epochs"])
            return (
                f"{both} are identical to the last bit: the losses and gradient norms of {every}"
                f"{', and the validation losses,' if validated else ''} are equal."
            )
        case "rounding" | "validation":
            found = "the losses are equal to the last bit" if losses["max"] == 0 else f"the losses differ by {most}"
            more = "" if losses["max"] == 0 or not losses["equal_steps"] else f", and {equal}"
            computed = "computed the same" if kind == "rounding" else "trained alike"
            return f"{both} {computed}, to {rounding}: over {steps} common {plural} {found}{more}."
        case "amplified":
            first = losses["first_step_above_threshold"]
            passes = f"never passes {gap(THRESHOLD)}" if first is None else f"passes {gap(THRESHOLD)} at step {first}"
            return (
                f"{both} computed the same: equal to {rounding} for the first {alike} steps; the gap of the losses "
                f"then grows little by little, as rounding does in training, {passes}, and is {most}."
            )
        case "jump":
            what, jump = _first_jump(pair)
            return (
                f"{both} computed the same at first, to {rounding} for {alike} steps. But at step "
                f"{jump['step']} the gap of the {what} jumps {factor(jump['factor'])}-fold, from at most "
                f"{gap(jump['largest_before'])} to {gap(jump['gap'])}."
            )
        case "apart":
            return f"{both} did not compute the same: {_apart(pair)}"
    return (
        f"{both} have no common start: their first step in common is {pair['first_common_step']}, so how they parted "
        f"is not on record. Over {steps} common {plural} the losses differ by {most}."
    )


def _apart(pair: Record) -> str:
    beyond, jump = pair["loss"]["beyond_rounding"], pair["grad_norm"]["jump"]
    if beyond and beyond["step"] == pair["first_common_step"]:
        before = ", before any update" if beyond["step"] == 1 else ", the first that both have on record"
        return f"the losses differ by {gap(beyond['gap'])} at step {beyond['step']} already{before}."
    if jump and not (beyond and beyond["step"] < jump["step"]):
        return f"the gradient norms differ by {gap(jump['gap'])} at step {jump['step']} already."
    return f"the losses agree at first but differ by {gap(beyond['gap'])} at step {beyond['step']} already."


def _cause(kind: str, pair: Record) -> str:
    most = f"The losses differ by {gap(pair['loss']['max'])} at most (step {pair['loss']['max_at_step']})."
    if kind == "jump":
        return (
            "Rounding grows little by little, so this is something else: look for what happened in one run only, such "
            f"as other data, a resumption or a fault. {most}"
        )
    if kind != "apart":
        return ""
    beyond = pair["loss"]["beyond_rounding"]
    later = beyond and beyond["step"] > pair["first_common_step"]
    hint = " Look at what an update does: gradient, clipping, learning rate, optimizer." if later else ""
    return (
        "That is not rounding, which needs more steps to grow: it is a difference between the programs or their "
        f"set-ups.{hint} {most}"
    )


def _first_jump(pair: Record) -> tuple[str, Record]:
    jumps = [(pair["loss"]["jump"], "losses"), (pair["grad_norm"]["jump"], "gradient norms")]
    found, what = min(((jump, what) for jump, what in jumps if jump), key=lambda item: int(item[0]["step"]))
    return what, found


def _gradients(kind: str, pair: Record) -> str:
    largest = pair["grad_norm"]
    if kind == "identical":
        return ""
    likewise = "part likewise, by" if kind == "amplified" else "differ by"
    return f"The gradient norms {likewise} {gap(largest['max'])} at most (step {largest['max_at_step']})."


def _validation(kind: str, pair: Record) -> str:
    common = [row for row in pair["epochs"] if row["validation_loss_gap"] is not None]
    if kind == "identical" or not common:
        return ""
    last = common[-1]
    values = f"{loss(last['validation_loss_a'])} and {loss(last['validation_loss_b'])}"
    told = f"The validation losses after step {last['step']}, {values}, differ by {gap(last['validation_loss_gap'])}."
    if last["validation_loss_gap"] == 0:
        told = f"The validation losses after step {last['step']}, {values}, are equal to the last bit."
    odd = pair["odd_validation"]
    if kind != "validation":
        return told
    return (
        f"{told} But after step {odd['step']} they differ by {gap(odd['gap'])}, more than any loss up to there "
        f"({gap(odd['largest_loss_gap'])}): look at what training does not see, the averaged weights and the "
        f"validation itself."
    )


def _lengths(pair: Record, a: Record, b: Record) -> str:
    if a["steps"] == b["steps"] == pair["common_steps"]:
        return ""
    return (
        f"{a['label']} made {a['steps']} steps and {b['label']} {b['steps']}; the verdict rests on the "
        f"{pair['common_steps']} that both have on record."
    )


def _status(run: Record) -> str:
    told = {
        "failed": f"{name(run)} failed at step {run['steps']}.",
        "interrupted": f"{name(run)} was interrupted at step {run['steps']}.",
        "running": f"{name(run)} had not ended when it was read, at step {run['steps']}: it goes on, or was killed.",
    }
    return told.get(run["status"], "")


def _shortness(kind: str, pair: Record) -> str:
    if kind not in ("identical", "rounding") or pair["common_steps"] >= FIRST_STEPS:
        return ""
    return f"Fewer than {FIRST_STEPS} steps show that two programs start alike, but not how rounding grows."


def _set_up(kind: str, pair: Record) -> str:
    if not pair["decisive_differences"]:
        return ""
    blame = ", which may be why they part" if kind in ("apart", "jump", "validation", "amplified") else ""
    return f"But the runs were set up differently{blame}: {', '.join(pair['decisive_differences'])}."
