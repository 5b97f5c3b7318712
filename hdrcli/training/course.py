"""What the training loop asks of a network's own file in this folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hdrcli.color import Float32
from hdrcli.network import Network
from hdrcli.training.recipe import Stage

Sample = Mapping[str, Float32 | Tensor]
Batch = Mapping[str, Tensor]
Losses = Mapping[str, Tensor]
Scores = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Course:
    """A network, and how it is fed, judged and shown.

    sample: one training sample, everything random in it drawn from the generator that it is given; it may run in
    another process. loss: the parts of the loss that the stage names, before their weights. score: of validation;
    "error" among them falls as the network gets better. sheet: (H, W, 3) uint8, validation pictures for people.
    plain: scores of the unprocessed input, where it can be judged.
    """

    network: Network
    sample: Callable[[Stage, np.random.Generator], Sample]
    loss: Callable[[Network, Batch, Stage], Losses]
    score: Callable[[Network, Stage], Scores]
    sheet: Callable[[Network], NDArray[np.uint8]] | None = None
    plain: Scores = field(default_factory=dict)
