"""What a pipeline is asked for, checked before anything is drawn."""

import pytest

from omnicache.errors import OmniCacheError
from omnicache.integrations.pipelines import as_call


class ByClass:
    def __init__(self):
        self.labels = {"fox": 0, "rocket": 1}

    def __call__(self, class_labels, guidance_scale=4.0, generator=None):
        return class_labels


@pytest.mark.parametrize("given", [3.0, None, [1]])
def test_an_input_is_a_class_or_arguments(given):
    with pytest.raises(OmniCacheError, match="An input is a class by number or name, or a dict of arguments, not"):
        as_call(ByClass(), given, 0)


def test_arguments_that_a_pipeline_does_not_take_are_named():
    with pytest.raises(OmniCacheError, match="ByClass takes no 'prompt'"):
        as_call(ByClass(), {"prompt": "fox"}, 0)
    with pytest.raises(OmniCacheError, match=r"takes no 'guidence_scale'. Did you mean 'guidance_scale'\?"):
        as_call(ByClass(), {"class_labels": [0], "guidence_scale": 2.0}, 0)
    assert as_call(ByClass(), "rocket", 0)["class_labels"] == [1]
