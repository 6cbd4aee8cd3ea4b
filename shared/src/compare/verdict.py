"""What a pair of runs shows, in words. Every number in them is a field of comparison.json."""

import re

from ddpm_shared.compare.gaps import FIRST_STEPS, FORMATS, START_STEPS, THRESHOLD
from ddpm_shared.compare.records import Jump, Pair, PairNumbers, PairVerdict, RunSummary
from ddpm_shared.frameworks import FRAMEWORKS

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


def name(run: RunSummary) -> str:
    """A run's name in a sentence, e.g. "TensorFlow (B)"."""
    return f"{FRAMEWORKS[run['framework']].title} ({run['label']})"


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
    return re.sub(r"e([+-])0?", lambda match: "e-" if match[1] == "-" else "e", f"{value:.1e}")


def judge(pair: PairNumbers, a: RunSummary, b: RunSummary) -> PairVerdict:
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


def words(pair: Pair) -> str:
    """A pair's whole verdict."""
    return f"{pair['verdict']['lead']} {pair['verdict']['details']}".strip()


def kind_of(pair: PairNumbers) -> str:
    """Which of KINDS the numbers are."""
    losses, gradients = pair["loss"], pair["grad_norm"]
    jumps = [jump["step"] for jump in (losses["jump"], gradients["jump"]) if jump]
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


def _opening(kind: str, pair: PairNumbers, both: str) -> str:
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
            gaps = "the losses are equal to the last bit" if losses["max"] == 0 else f"the losses differ by {most}"
            more = "" if losses["max"] == 0 or not losses["equal_steps"] else f", and {equal}"
            computed = "computed the same" if kind == "rounding" else "trained alike"
            return f"{both} {computed}, to {rounding}: over {steps} common {plural} {gaps}{more}."
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


def _apart(pair: PairNumbers) -> str:
    beyond, jump = pair["loss"]["beyond_rounding"], pair["grad_norm"]["jump"]
    if beyond and beyond["step"] == pair["first_common_step"]:
        before = ", before any update" if beyond["step"] == 1 else ", the first that both have on record"
        return f"the losses differ by {gap(beyond['gap'])} at step {beyond['step']} already{before}."
    if jump and not (beyond and beyond["step"] < jump["step"]):
        return f"the gradient norms differ by {gap(jump['gap'])} at step {jump['step']} already."
    assert beyond is not None  # or they would not be apart
    return f"the losses agree at first but differ by {gap(beyond['gap'])} at step {beyond['step']} already."


def _cause(kind: str, pair: PairNumbers) -> str:
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


def _first_jump(pair: PairNumbers) -> tuple[str, Jump]:
    jumps = [(pair["loss"]["jump"], "losses"), (pair["grad_norm"]["jump"], "gradient norms")]
    jump, what = min(((jump, what) for jump, what in jumps if jump), key=lambda item: item[0]["step"])
    return what, jump


def _gradients(kind: str, pair: PairNumbers) -> str:
    largest = pair["grad_norm"]
    if kind == "identical":
        return ""
    likewise = "part likewise, by" if kind == "amplified" else "differ by"
    return f"The gradient norms {likewise} {gap(largest['max'])} at most (step {largest['max_at_step']})."


def _validation(kind: str, pair: PairNumbers) -> str:
    common = [
        (row["step"], a, b, apart)
        for row in pair["epochs"]
        if (a := row["validation_loss_a"]) is not None
        and (b := row["validation_loss_b"]) is not None
        and (apart := row["validation_loss_gap"]) is not None
    ]
    if kind == "identical" or not common:
        return ""
    step, a, b, apart = common[-1]
    losses = f"The validation losses after step {step}, {loss(a)} and {loss(b)},"
    sentence = f"{losses} are equal to the last bit." if apart == 0 else f"{losses} differ by {gap(apart)}."
    odd = pair["odd_validation"]
    if odd is None or kind != "validation":
        return sentence
    return (
        f"{sentence} But after step {odd['step']} they differ by {gap(odd['gap'])}, more than any loss up to there "
        f"({gap(odd['largest_loss_gap'])}): look at what training does not use, the averaged weights and the "
        f"validation itself."
    )


def _lengths(pair: PairNumbers, a: RunSummary, b: RunSummary) -> str:
    if a["steps"] == b["steps"] == pair["common_steps"]:
        return ""
    return (
        f"{a['label']} made {a['steps']} steps and {b['label']} {b['steps']}; the verdict rests on the "
        f"{pair['common_steps']} that both have on record."
    )


def _status(run: RunSummary) -> str:
    sentences = {
        "failed": f"{name(run)} failed at step {run['steps']}.",
        "interrupted": f"{name(run)} was interrupted at step {run['steps']}.",
        "running": f"{name(run)} had not ended when it was read, at step {run['steps']}: it goes on, or was killed.",
    }
    return sentences.get(run["status"], "")


def _shortness(kind: str, pair: PairNumbers) -> str:
    if kind not in ("identical", "rounding") or pair["common_steps"] >= FIRST_STEPS:
        return ""
    return f"Fewer than {FIRST_STEPS} steps show that two programs start alike, but not how rounding grows."


def _set_up(kind: str, pair: PairNumbers) -> str:
    if not pair["decisive_differences"]:
        return ""
    blame = ", which may be why they part" if kind in ("apart", "jump", "validation", "amplified") else ""
    return f"But the runs were set up differently{blame}: {', '.join(pair['decisive_differences'])}."
