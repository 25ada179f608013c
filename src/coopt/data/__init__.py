"""Images, labels and data sets: from what lies on a disk to features and class indices.

Notation: N images, V views, D the backbone's embedding dimension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coopt.data.benchmarks.catalogue import DATASET_TEMPLATES as DATASET_TEMPLATES
    from coopt.data.benchmarks.registry import register_dataset as register_dataset
    from coopt.data.cache import BackboneSize as BackboneSize
    from coopt.data.cache import CacheSize as CacheSize
    from coopt.data.cache import FeatureCache as FeatureCache
    from coopt.data.cache import FeatureKey as FeatureKey
    from coopt.data.cache import default_cache_folder as default_cache_folder
    from coopt.data.dataset import load_dataset as load_dataset
    from coopt.data.features import Features as Features
    from coopt.data.features import as_features as as_features
    from coopt.data.features import extract_features as extract_features
    from coopt.data.finding import find_images as find_images
    from coopt.data.images import IMAGE_EXTENSIONS as IMAGE_EXTENSIONS
    from coopt.data.images import MAX_PIXELS as MAX_PIXELS
    from coopt.data.images import display_name as display_name
    from coopt.data.images import open_image as open_image
    from coopt.data.labels import as_class_names as as_class_names
    from coopt.data.labels import as_labels as as_labels
    from coopt.data.labels import encode_labels as encode_labels
    from coopt.data.leakage import find_leakage as find_leakage
    from coopt.data.reference_cache import read_reference_cache as read_reference_cache
    from coopt.data.sampling import BaseNewClasses as BaseNewClasses
    from coopt.data.sampling import base_and_new as base_and_new
    from coopt.data.sampling import base_to_new as base_to_new
    from coopt.data.sampling import few_shot as few_shot
    from coopt.data.sampling import few_shot_indices as few_shot_indices
    from coopt.data.sampling import linear_probe_indices as linear_probe_indices
    from coopt.data.splits import ImageDataset as ImageDataset
    from coopt.data.splits import Split as Split
    from coopt.data.splits import hold_out as hold_out

# Finding images and looking at the cache must not wait for torch, which only decoding and encoding need.
_LAZY = {
    "IMAGE_EXTENSIONS": "images",
    "MAX_PIXELS": "images",
    "DATASET_TEMPLATES": "benchmarks.catalogue",
    "BackboneSize": "cache",
    "BaseNewClasses": "sampling",
    "CacheSize": "cache",
    "FeatureCache": "cache",
    "FeatureKey": "cache",
    "Features": "features",
    "ImageDataset": "splits",
    "Split": "splits",
    "as_class_names": "labels",
    "as_features": "features",
    "as_labels": "labels",
    "base_and_new": "sampling",
    "base_to_new": "sampling",
    "default_cache_folder": "cache",
    "display_name": "images",
    "encode_labels": "labels",
    "extract_features": "features",
    "few_shot": "sampling",
    "few_shot_indices": "sampling",
    "find_images": "finding",
    "find_leakage": "leakage",
    "hold_out": "splits",
    "linear_probe_indices": "sampling",
    "load_dataset": "dataset",
    "open_image": "images",
    "read_reference_cache": "reference_cache",
    "register_dataset": "benchmarks.registry",
}

__all__ = [*_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
