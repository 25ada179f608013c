from . import app as app
from . import errors as errors
from . import events as events
from .backbones.loading import load_backbone as load_backbone
from .backbones.names import list_backbones as list_backbones
from .backbones.protocol import Backbone as Backbone
from .data.benchmarks.registry import register_dataset as register_dataset
from .data.cache import FeatureCache as FeatureCache
from .data.dataset import load_dataset as load_dataset
from .data.splits import ImageDataset as ImageDataset
from .methods.cocoop import CoCoOp as CoCoOp
from .methods.coop import CoOp as CoOp
from .methods.image_tuning import ImageEncoderTuning as ImageEncoderTuning
from .methods.kgcoop import KgCoOp as KgCoOp
from .methods.linear_probe import LinearProbe as LinearProbe
from .methods.loading import load as load
from .methods.saving import describe as describe
from .methods.text_bias import TextBias as TextBias
from .methods.text_transformation import TextTransformation as TextTransformation
from .methods.tip_adapter import TipAdapter as TipAdapter
from .methods.zero_shot import ZeroShot as ZeroShot
from .runtime import Runtime as Runtime
from .training.recipe import Recipe as Recipe

__version__: str
