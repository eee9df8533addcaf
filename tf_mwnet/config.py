"""The configuration of a run: one frozen dataclass, which the flags mirror."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_mwnet import methods
from tf_mwnet.data.cache import CACHES
from tf_mwnet.data.checks import BLANK
from tf_mwnet.data.images import LARGEST_SIDE, RESIZE_SIDES
from tf_mwnet.data.meta_sets import BALANCES
from tf_mwnet.data.scaling import SCALINGS
from tf_mwnet.data.texts import TEXT
from tf_mwnet.errors import LARGEST, UserError, check_range, choose
from tf_mwnet.features.embedding import DTYPES
from tf_mwnet.features.kinds import POOLINGS
from tf_mwnet.features.scalings import SCALINGS as PIXELS
from tf_mwnet.losses import LOSSES
from tf_mwnet.methods import METHODS, options
from tf_mwnet.model.meta_scope import SCOPES, SPEEDS
from tf_mwnet.model.mixing import LARGEST_ALPHA
from tf_mwnet.networks import NETWORKS
from tf_mwnet.strategies import STRATEGIES

SCHEDULES = ("step", "cosine", "cosine_epochs")
META_SCHEDULES = ("constant", "as_lr", "inverse")
META_OPTIMIZERS = ("adam", "amsgrad", "sgd")
OPTIMIZERS = ("sgd", "adam", "adamw")
# Fields that may be paths.
PATHS = (
    "dataset", "data_dir", "cache_dir", "noise", "weight_net", "run_dir", "backbone", "backbone_weights",
    "features",
)  # fmt: skip
AUGMENTATIONS = ("auto", "none", "crop", "flip", "crop_flip")


def option(default: Any, text: str, about: str = "", **limits: Any) -> Any:
    """Makes a field with its help text, and the limits of its values, see `methods.options.Option`.

    ``about`` is "" if it changes the result of every method; else "folder" of the run, "machines" that
    it runs on, "afterwards" (what needs no training), "place" of the data, "seed", "method" (which, and
    its options), "learning" (matters to methods that learn weights) or "fine_tuning" (matters only with
    it).
    """
    metadata = {"help": text, "about": about, "limits": limits}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Everything that a run depends on. Each field is also a flag, with the same name and help text.

    Raises:
        UserError: on construction, a value is not one that its help text allows.

    Examples:
        >>> config = tf_mwnet.Experiment(method="gdw --eta=1000", compare="erm", epochs=80)
        >>> config.options_of("gdw")
        {'eta': 1000.0}
    """

    # Data
    dataset: str = option(
        "digits", "digits, folder, csv, npz, records, or a TensorFlow Datasets name (cifar10 ...)"
    )
    data_dir: str | None = option(
        None,
        "the folder of images, texts or TFRecord files, the .csv or .npz file, or TFDS's folder",
        about="place",
    )
    label_key: str = option("", "column of a table or of TFDS to train on; 'label' by default")
    clean_label_key: str = option("", "column of true labels, for data that has both")
    text_column: str = option(TEXT, "column of texts in a .csv or .tsv table")
    resize: int = option(
        0, "pixels that folder images are resized to; 0 for none", at_least=0, at_most=LARGEST_SIDE
    )
    resize_sides: str = option(
        "shorter", "which sides resize sets: shorter, keeping the shape, or both", choices=RESIZE_SIDES
    )
    center_crop: int = option(
        0,
        "side of the square that is then cut from the centre; 0 for none",
        at_least=0,
        at_most=LARGEST_SIDE,
    )
    cache: str = option(
        "auto",
        "where decoded images are kept: memory; disk, one file for all runs; none, decoded on the fly"
        " (folders); auto, in memory up to 4 GB; with features, a folder's images are decoded once",
        about="machines",
        choices=CACHES,
    )
    cache_dir: str = option("", "folder of cache=disk; ~/.cache/tf_mwnet by default", about="machines")
    blank_images: str = option(
        "refuse",
        "images whose pixels are all equal: refuse, or keep, with a warning",
        about="place",
        choices=BLANK,
    )
    classes: tuple[str, ...] = option(
        (), "classes to keep, all by name or all by number: cat,dog; all by default"
    )
    scaling: str = option(
        "standardised",
        "of the inputs: standardised per channel; of 8-bit images also unit, 0 to 1, or signed, -1 to 1",
        choices=tuple(SCALINGS),
    )
    backbone: str = option(
        "",
        "train on the features of a pretrained network: keras_hub:<preset>, keras_app:<name>, a .keras"
        " or .tflite file, a SavedModel folder, or module:function",
    )
    backbone_size: int = option(
        0, "side in pixels of the backbone's images, or tokens of its texts; 0 for its own"
    )
    backbone_scaling: str = option(
        "auto",
        f"scaling of the backbone's pixels: auto, its own if that is known, else signed;"
        f" {', '.join(PIXELS)}",
        choices=("auto", *PIXELS),
    )
    backbone_pooling: str = option(
        "auto",
        "pooling of the backbone's maps or tokens: auto; none (for vectors), mean, max, or first, the"
        " first token",
        choices=("auto", *POOLINGS),
    )
    backbone_weights: str = option("", "file of the weights of keras_app:<name>", about="place")
    views: int = option(
        1,
        "features of each image: of the whole one, and of random parts, one of which a step takes",
        at_least=1,
    )
    features: str = option(
        "",
        "folder of features: to be kept in, or computed before; in ~/.cache by default",
        about="place",
    )
    feature_dtype: str = option("float32", "of the features on disk: float32, float16", choices=DTYPES)
    # Bias
    noise: str = option(
        "auto",
        "noise added to the labels: auto (flip2 for the digits, none for other data), none, uniform,"
        " flip, flip2, background, hierarchical, or a .csv/.npy file with the transition matrix",
    )
    noise_rate: float = option(
        0.4,
        "share of labels that are changed (uniform: redrawn from all classes), 0 to 1",
        at_least=0,
        at_most=1,
    )
    background_class: str = option(
        "", "noise=background's class, by name or by number among those kept; drawn at random by default"
    )
    imbalance_factor: float = option(1.0, "largest over smallest class, at least 1", at_least=1)
    class_counts: tuple[int, ...] = option((), "training examples per class, not with imbalance_factor")
    train_size: int = option(0, "training examples to keep, drawn at random; 0 for all")
    test_fraction: float = option(
        0.25,
        "share of the training set held out for testing if the data has no test set",
        above=0,
        below=1,
    )
    meta_size: int = option(100, "examples in the meta set, held out of training, see meta_balance")
    meta_labels: str = option(
        "auto",
        "labels of the meta set: clean, noisy, or auto (what the method is made for)",
        choices=("auto", "clean", "noisy"),
    )
    meta_balance: str = option(
        "given",
        "what a meta set has equally many of: examples of each given label; of each true class, also if"
        " its labels are noisy (true); neither, drawn at random (none)",
        choices=BALANCES,
    )
    drop_duplicates: bool = option(
        False,
        "leave out training examples that are also in the test or clean meta set, or twice: with two"
        " labels all of them, else all but one (images in memory)",
    )
    data_seed: int = option(0, "seed of splits, imbalance and noise", about="seed")
    noise_seed: int | None = option(None, "seed of the noise alone; data_seed by default", about="seed")
    # Method
    method: str = option(
        "auto",
        f"how examples are weighted: {', '.join(METHODS)}, or auto (mwnet; elr if no label is known to"
        " be right; logit_adjustment for a long tail); options of the method follow its name:"
        " 'gdw --eta=1000'",
        about="method",
    )
    compare: str = option(
        "", "a method that is trained first on the same data and schedule: erm", about="method"
    )
    meta_loss: str = option(
        "auto",
        f"meta loss: {', '.join(LOSSES)}, or auto (the method's own)",
        about="learning",
        choices=("auto", *LOSSES),
    )
    hidden: tuple[int, ...] = option((100,), "the weight net's hidden layer sizes", about="learning")
    normalise: bool = option(
        True, "divide the weights by their batch sum (else: mean of weight * loss)", about="learning"
    )
    weight_net: str = option(
        "", "a SavedModel weight function to use; needs no meta set", about="learning"
    )
    weight_net_replay: bool = option(
        True,
        "follow the function over its own training, if the file has that; else use its final state",
        about="learning",
    )
    early_stopping: int = option(
        0, "training examples with given labels held out to choose the best epoch; 0 for none"
    )
    then_fine_tune: int = option(
        0, "steps of plain training on the meta set after the method (5,000 in L2RW); 0 for none"
    )
    fine_tune_unit: str = option(
        "steps",
        "what then_fine_tune counts: steps, or epochs of the meta set",
        about="fine_tuning",
        choices=("steps", "epochs"),
    )
    fine_tune_lr: float = option(1e-3, "learning rate of then_fine_tune", about="fine_tuning", above=0)
    then_unfreeze: int = option(
        0, "epochs in which backbone and head are trained together afterwards, with the learned weights"
    )
    unfreeze_lr: float = option(
        1e-4, "learning rate of then_unfreeze, which falls to 0", about="fine_tuning", above=0
    )
    post_hoc_logit_adjustment: float = option(
        0.0,
        "factor of the log class shares that are taken off the logits afterwards (1 in the paper), also"
        " of a finished run, with --resume; 0 for none",
        about="afterwards",
        at_least=0,
        at_most=100,
    )
    # Classifier and schedule
    network: str = option("auto", f"classifier: auto, {', '.join(NETWORKS)}")
    dropout: float = option(0.0, "wrn28_10's dropout rate, 0 to 1", at_least=0, at_most=1)
    mixup: float = option(
        0.0, "alpha of mixup of training inputs; 0 for none", at_least=0, at_most=LARGEST_ALPHA
    )
    meta_mixup: float = option(
        0.0,
        "alpha of mixup of meta batches; 0 for none",
        about="learning",
        at_least=0,
        at_most=LARGEST_ALPHA,
    )
    label_smoothing: float = option(
        0.0, "share of each label that is spread over all classes", at_least=0, below=1
    )
    grad_clip: float = option(0.0, "largest norm of the classifier's gradient; 0 for any", at_least=0)
    ema: float = option(
        0.0,
        "momentum of a moving average of the classifier, which is evaluated and exported; 0 for none",
        at_least=0,
        below=1,
    )
    augment: str = option(
        "auto", "auto (crop_flip for RGB, else none), none, crop, flip, crop_flip", choices=AUGMENTATIONS
    )
    epochs: int = option(60, "passes over the training set, or blocks of steps_per_epoch", at_least=1)
    steps_per_epoch: int = option(0, "steps per epoch; 0 for one pass over the training set")
    batch_size: int = option(100, "training examples per step", at_least=1)
    meta_batch_size: int = option(
        100, "meta examples per step, at most meta_size", about="learning", at_least=1
    )
    lr: float = option(0.1, "learning rate of the classifier (SGD)", above=0)
    schedule: str = option(
        "step",
        "step (see lr_drops), cosine, or cosine_epochs (cosine with one value an epoch)",
        choices=SCHEDULES,
    )
    lr_drops: tuple[int, ...] = option((40, 50), "epochs after which lr is divided by 10", at_least=1)
    optimizer: str = option(
        "sgd", "of the classifier: sgd, adam, or adamw, whose decay is l2", choices=OPTIMIZERS
    )
    momentum: float = option(0.9, "SGD momentum, 0 to 1", at_least=0, at_most=1)
    nesterov: bool = option(False, "Nesterov momentum, also of the weight net's SGD")
    l2: float = option(5e-4, "coupled L2 of the classifier", at_least=0)
    meta_optimizer: str = option(
        "adam",
        "optimizer of the weight net: adam, amsgrad or sgd",
        about="learning",
        choices=META_OPTIMIZERS,
    )
    meta_lr: float = option(
        0.0,
        "learning rate of the weight net; 0 for the method's own (1e-3; insw 0.1, mlc 3e-4), a tenth of"
        " which is taken for a linear head on features and a long tail without added noise",
        about="learning",
        at_least=0,
    )
    meta_l2: float = option(0.0, "coupled L2 of the weight net", about="learning", at_least=0)
    meta_schedule: str = option(
        "constant",
        "learning rate of the weight net after t epochs: constant; as_lr, on the classifier's schedule;"
        " or inverse, meta_lr / (1 + t), whose sum diverges and whose sum of squares does not",
        about="learning",
        choices=META_SCHEDULES,
    )
    meta_scope: str = option(
        "all",
        "parameters that the virtual step moves: all, last_stage, head; fewer are faster and less exact",
        about="learning",
        choices=tuple(SCOPES),
    )
    meta_every: int = option(
        1,
        "learn the weights in every n-th step; the weight net's learning rate is multiplied by n; with"
        " meta_ema and Adam by a factor from the root of n to n that falls to 0",
        about="learning",
        at_least=1,
    )
    meta_start: int = option(
        0, "first steps, which learn no weights: they stay as they are", about="learning", at_least=0
    )
    meta_warmup: int = option(
        0, "steps after these, which all learn the weights", about="learning", at_least=0
    )
    meta_late: bool = option(
        False,
        "update the classifier with the weights from before the weight net's update; cheaper",
        about="learning",
    )
    meta_ema: float = option(
        0.0,
        "momentum of an average of the meta loss's gradient over meta batches; 0 for each one's own",
        about="learning",
        at_least=0,
        below=1,
    )
    speed: str = option(
        "exact",
        "exact; or fast: meta_batch_size=25, meta_every=25, meta_late, meta_ema=0.9, meta_start 3 % and"
        " meta_warmup 4 % of all steps, where these have their defaults",
        about="learning",
        choices=SPEEDS,
    )
    precision: str = option(
        "float32",
        "float32, mixed_bfloat16, or mixed_float16",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    jit_compile: bool = option(False, "compile the step with XLA")
    sync_batch_norm: bool = option(False, "batch norm over the batch of all replicas, not of each one")
    seed: int = option(0, "seed of initial values, batch order and augmentation", about="seed")
    # Set by method and compare, where options follow the name.
    method_options: Mapping[str, Mapping[str, Any]] = dataclasses.field(
        default_factory=dict, hash=False, metadata={"flag": False, "about": "method"}
    )
    # The run
    strategy: str = option(
        "none",
        "none; mirrored, over the devices of this machine; multiworker, over the machines in TF_CONFIG",
        about="machines",
        choices=STRATEGIES,
    )
    replicas: int = option(
        0, "mirrored's GPUs, or CPU devices where there are none; 0: all GPUs", about="machines"
    )
    run_dir: str = option(
        "", "folder of the results; runs/<name>-<free number> by default", about="folder"
    )
    overwrite: bool = option(False, "replace the run that run_dir holds", about="folder")
    resume: bool = option(
        False, "continue the run that run_dir holds from its last whole epoch", about="folder"
    )
    auto_resume: bool = option(False, "resume if run_dir holds a run, else start one", about="folder")

    def __post_init__(self) -> None:
        for name in PATHS:
            if value := getattr(self, name):
                object.__setattr__(self, name, os.path.expanduser(os.fspath(value)))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.generic):
                object.__setattr__(self, field.name, value.item())
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"{field.name} is {value}; allowed: a finite number")
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, int):
                    check_range(field.name, number, 0, LARGEST)
            if limits := field.metadata.get("limits"):
                options.Option(field.name, field.metadata["help"], **limits).check(value)
        self._split_methods()
        if self.compare and self.compare == self.method:
            raise UserError(f"compare is '{self.compare}', as method is; allowed: another method")
        if self.strategy == "multiworker" and not self.run_dir:
            raise UserError("strategy is multiworker without run_dir; allowed: a folder that all see")
        if self.class_counts and self.imbalance_factor != 1:
            raise UserError(
                f"class_counts is set with imbalance_factor {self.imbalance_factor:g}; allowed: one of"
                " them"
            )
        if self.dataset == "digits":
            for name in ("data_dir", "label_key", "clean_label_key", "text_column"):
                if (getattr(self, name) or "") != (DEFAULTS[name] or ""):
                    raise UserError(
                        f"{name} is '{getattr(self, name)}' with dataset 'digits'; allowed: with another"
                    )
        for name in (
            "backbone_size",
            "backbone_scaling",
            "backbone_pooling",
            "backbone_weights",
            "views",
        ):
            if getattr(self, name) != DEFAULTS[name] and not self.backbone:
                raise UserError(f"{name} is {getattr(self, name)} without backbone; allowed: with one")
        if self.resume and self.overwrite:
            raise UserError("resume and overwrite are both set; allowed: one of them")
        if self.auto_resume and (self.overwrite or not self.run_dir):
            raise UserError("auto_resume is set; allowed: with run_dir, and without overwrite")

    def _split_methods(self) -> None:
        """Parts the names in method and compare from the options behind them; checks all options."""
        own = {
            name: options.checked(choose("method", name, METHODS), values)
            for name, values in self.method_options.items()
        }
        for field in ("method", "compare"):
            text = getattr(self, field)
            if text == {"method": "auto", "compare": ""}[field]:
                continue
            if field == "method":
                choose("method", text.partition(" ")[0], dict.fromkeys((*METHODS, "auto")))
            name, given = methods.parse(text)
            object.__setattr__(self, field, name)
            if given:
                own[name] = own.get(name, {}) | given
        object.__setattr__(self, "method_options", own)

    def options_of(self, name: str) -> dict[str, Any]:
        """Returns the options that are set for a method, see `methods.options.Option`."""
        return dict(self.method_options.get(name, {}))

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods to train, in order: the one compared with first."""
        return (self.compare, self.method) if self.compare else (self.method,)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


DEFAULTS: dict[str, Any] = {
    field.name: {} if field.name == "method_options" else field.default
    for field in dataclasses.fields(Experiment)
}


def fields_about(*topics: str) -> tuple[str, ...]:
    """Returns the names of the fields about any of these topics, see `option`."""
    return tuple(f.name for f in dataclasses.fields(Experiment) if f.metadata["about"] in topics)


# Not part of what a run computes: a resumed run may differ in them.
ABOUT_THE_FOLDER, ABOUT_THE_MACHINES = fields_about("folder"), fields_about("machines")
AFTERWARDS = fields_about("afterwards")
