"""All quantities, and what it takes to judge them."""

from ddpm_parity import (
    bound,
    colour,
    continuous,
    continuous_drawing,
    continuous_training,
    data,
    engine,
    guidance,
    labels,
    layers,
    likelihood,
    network,
    optimizer,
    passport,
    pictures,
    prediction,
    processes,
    residual,
    residual_training,
    samplers,
    sampling,
    schedule,
    solvers,
    training,
    transformer,
    workers,
    zoo,
)
from ddpm_parity.quantities import Arrays, Quantity, Verdict, judge
from ddpm_parity.sides import Oracle, Side
from ddpm_parity.tf_side import TensorFlow
from ddpm_parity.torch_side import Torch
from ddpm_shared.config import Device, Precision
from ddpm_shared.errors import UserError
from ddpm_shared.frameworks import installed

PRECISIONS: tuple[Precision, ...] = ("fp64", "fp32")
QUANTITIES: list[Quantity] = [
    quantity
    for subject in (
        schedule,
        engine,
        prediction,
        guidance,
        processes,
        samplers,
        solvers,
        layers,
        network,
        labels,
        transformer,
        residual,
        zoo,
        data,
        pictures,
        optimizer,
        training,
        residual_training,
        sampling,
        bound,
        likelihood,
        colour,
        continuous,
        continuous_training,
        continuous_drawing,
        passport,
        workers,
    )
    for quantity in subject.QUANTITIES
]


class Suite:
    """The three sides in each precision; what one quantity computed serves the next.

    Args:
        device: "cpu" or "gpu".

    Raises:
        UserError: a framework is not installed, or there is no GPU.
    """

    def __init__(self, device: Device = "cpu") -> None:
        for framework in ("torch", "tensorflow"):
            if not installed(framework):
                raise UserError(f"{framework} is not installed, and parity compares both frameworks: run `make setup`")
        self.device = device
        oracle = Oracle(Torch("fp64"))  # one for both precisions: it computes everything once
        self.sides: dict[Precision, dict[str, Side]] = {}
        for precision in PRECISIONS:
            torch, tf = Torch(precision, device), TensorFlow(precision, device)
            torch.other, tf.other = tf, torch
            self.sides[precision] = {"torch": torch, "tf": tf, "oracle": oracle}

    def judge(self, quantity: Quantity, precision: Precision) -> Verdict:
        """Compute a quantity on the three sides and compare each with each."""
        results = {name: self.compute(quantity, side) for name, side in self.sides[precision].items()}
        return judge(quantity, results, precision, self.device)

    def compute(self, quantity: Quantity, side: Side) -> Arrays:
        """What a side makes of a quantity, once."""
        return side.keep(str(quantity), lambda: quantity.compute(side))
