"""Named sets of templates."""

from __future__ import annotations

import torch

from coopt.backbones import Backbone
from coopt.methods.zero_shot import ZeroShot
from coopt.prompts.templates import ENSEMBLE, imagenet_templates, template_list


def test_clips_eighty_templates() -> None:
    templates = template_list("ensemble-80")
    assert templates == imagenet_templates()
    assert len(set(templates)) == 80 and all(one.count("{}") == 1 for one in templates)
    assert set(ENSEMBLE) <= set(templates)  # the seven were selected from them


def test_zero_shot_by_the_name_of_a_set(backbone: Backbone) -> None:
    named = ZeroShot(backbone, templates="ensemble-80").fit_classes(["cat", "dog"])
    given = ZeroShot(backbone, templates=imagenet_templates()).fit_classes(["cat", "dog"])
    assert torch.equal(named.text_features_, given.text_features_)
