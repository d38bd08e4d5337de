"""What each command takes; what it does is in the file of its name.

Nothing here needs TensorFlow, so that `--help` and mistakes are answered at
once.
"""

import collections

from keras_uap.cli.options import (
    add_ball,
    add_batch_size,
    add_class_names,
    add_held_out,
    add_images,
    add_model,
    add_output,
    add_perturbation,
    add_seed,
    positive,
    share,
    whole,
)

Command = collections.namedtuple("Command", ["help", "example", "add"])


def _demo(parser):
    add_ball(parser)
    add_batch_size(parser, 16, fits=True)
    add_output(parser)


def _audit(parser):
    add_model(parser)
    add_images(parser)
    add_ball(parser)
    parser.add_argument(
        "--budget",
        choices=("quick", "standard"),
        default="standard",
        help="quick: 5 attacks of 2,000 model passes; standard: 11 of 6,000 "
        "and 2 of 18,000, half an hour for a small model on two cores "
        "(default: standard)",
    )
    add_class_names(parser)
    add_batch_size(parser, 32)
    add_output(parser)


def _fit(parser):
    add_model(parser)
    add_images(parser)
    add_held_out(parser)
    add_ball(parser)
    parser.add_argument(
        "--update",
        metavar="NAME",
        help="what a batch does to the perturbation: 'lion' makes sign steps "
        "that become smaller; 'deepfool' takes DeepFool's increments; or any "
        "other Keras optimizer (default: lion, and deepfool for l2 without a "
        "target)",
    )
    parser.add_argument(
        "--epochs",
        type=whole,
        metavar="N",
        help="passes over the pictures; each costs about three forward passes "
        "a picture, and the time left is told (default: 5; where the pictures "
        "are varied, at least as many as make 2,000 views)",
    )
    parser.add_argument(
        "--target",
        type=int,
        metavar="CLASS",
        help="class index to send pictures to (default: any other)",
    )
    parser.add_argument(
        "--augment",
        action="store_true",
        help="show a new view of each picture in each epoch: a random crop, "
        "other light, sometimes mirrored. Few pictures go much further so; "
        "fewer than 500 are always varied",
    )
    add_class_names(parser)
    add_batch_size(parser, 16, fits=True)
    add_output(parser)


def _evaluate(parser):
    add_model(parser)
    add_perturbation(parser)
    add_images(
        parser,
        labels="give error rates too: the classes of the pictures are those "
        "of the model (a folder for each, in sorted order)",
    )
    add_seed(parser)
    add_class_names(parser)
    add_batch_size(parser, 32)


def _transfer(parser):
    add_model(parser, several=True)
    add_perturbation(parser, several=True)
    add_images(parser)
    add_seed(parser)
    add_batch_size(parser, 32)
    add_output(parser)


def _harden(parser):
    add_model(parser)
    add_images(
        parser,
        labels="the classes of the pictures are those of the model (a folder "
        "for each, in sorted order); default: the model's own answers on clean "
        "pictures",
    )
    add_held_out(parser)
    add_ball(parser)
    parser.add_argument(
        "--robustness",
        type=share,
        default=0.5,
        metavar="R",
        help="how much robustness to buy with clean answers, 0 to 1 (default: "
        "0.5)",
    )
    parser.add_argument(
        "--epochs",
        type=whole,
        metavar="N",
        help="passes of the fine-tuning (default: as many as draw 8,000 "
        "pictures)",
    )
    parser.add_argument(
        "--learning-rate",
        type=positive,
        default=2e-4,
        metavar="RATE",
        help="of Adam, falling to 0 (default: 0.0002)",
    )
    parser.add_argument(
        "--budget",
        choices=("quick", "standard"),
        default="quick",
        help="of the audits before and after, as for audit (default: quick)",
    )
    add_class_names(parser)
    add_output(parser)


def _report(parser):
    _evaluate(parser)
    add_output(parser)


COMMANDS = {
    "demo": Command(
        "Find a perturbation of the embedded ImageNet classifier, in a few "
        "minutes.",
        "python -m keras_uap demo --output demo",
        _demo,
    ),
    "audit": Command(
        "Find out how fragile your classifier is: the strongest of many "
        "attacks.",
        """\
python -m keras_uap audit --model classifier.keras --images photos/ \\
      --output audit""",
        _audit,
    ),
    "fit": Command(
        "Find a perturbation of your own classifier on your own pictures.",
        """\
python -m keras_uap fit --model classifier.keras --images photos/ \\
      --value-range -1 1 --epsilon 10 --output result""",
        _fit,
    ),
    "evaluate": Command(
        "Measure how often a saved perturbation fools a classifier.",
        """\
python -m keras_uap evaluate --model classifier.keras \\
      --perturbation result/uap.npz --images other_photos/""",
        _evaluate,
    ),
    "transfer": Command(
        "Measure several perturbations on several classifiers.",
        """\
python -m keras_uap transfer --model one.keras two.keras \\
      --perturbation one/uap.npz two/uap.npz --images other_photos/""",
        _transfer,
    ),
    "harden": Command(
        "Fine-tune a classifier so that perturbations fool it less.",
        """\
python -m keras_uap harden --model classifier.keras --images photos/ \\
      --epochs 10 --output hardened""",
        _harden,
    ),
    "report": Command(
        "Write a page about a saved perturbation.",
        """\
python -m keras_uap report --model classifier.keras \\
      --perturbation result/uap.npz --images other_photos/ --output page""",
        _report,
    ),
}
