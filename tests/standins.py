"""Small models with random weights under the default models' names, for tests of what lies around the networks."""

from pathlib import Path

import torch

from hdrcli import nets, zoo


def save_standin(name: str, folder: Path) -> None:
    """Saves the tiny build of the network `name` as the model `name`."""
    spec = nets.spec(name)
    torch.manual_seed(0)
    network = spec.build(**spec.tiny).eval()
    build = {key: list(value) if isinstance(value, tuple) else value for key, value in spec.tiny.items()}
    zoo.save(
        name=name,
        net=name,
        state=dict(network.state_dict()),
        build=build,
        licence="MIT",
        origin="random numbers",
        training={},
        scores={},
        folder=folder,
        sample=False,
    )
