"""All quantities, and what it takes to judge them."""

from ddpm_parity import data, engine, layers, network, optimizer, sampling, schedule, training
from ddpm_parity.quantities import Arrays, Quantity, Verdict, judge
from ddpm_parity.sides import Oracle, Side, sides
from ddpm_shared.config import Device, Precision

PRECISIONS: tuple[Precision, ...] = ("fp64", "fp32")
QUANTITIES: list[Quantity] = [
    quantity
    for subject in (schedule, engine, layers, network, data, optimizer, training, sampling)
    for quantity in subject.QUANTITIES
]


class Suite:
    """The three sides in each precision; what one quantity computed serves the next.

    Args:
        device: "cpu" or "gpu".
    """

    def __init__(self, device: Device = "cpu") -> None:
        self.device, self.quantities = device, QUANTITIES
        oracle = Oracle()
        self.sides: dict[Precision, dict[str, Side]] = {p: sides(p, device, oracle) for p in PRECISIONS}

    def judge(self, quantity: Quantity, precision: Precision) -> Verdict:
        """Compute a quantity on the three sides and compare each with each."""
        results = {name: self.compute(quantity, side) for name, side in self.sides[precision].items()}
        return judge(quantity, results, precision, self.device)

    def compute(self, quantity: Quantity, side: Side) -> Arrays:
        """What a side makes of a quantity, once."""
        return side.keep(str(quantity), lambda: quantity.compute(side))  # type: ignore[no-any-return]
