"""`report`: a page about a saved perturbation."""

from keras_uap.commands import _tools, evaluate
from keras_uap.saving import atomic_path

HELP = "Write a page about a saved perturbation."
EXAMPLE = """\
python -m keras_uap report --model classifier.keras \\
      --perturbation result/uap.npz --images other_photos/ --output page"""


def add_arguments(parser):
    evaluate.add_arguments(parser)
    _tools.add_output(parser)


def run(options):
    _tools.make_folder(options.output)
    report, class_names = evaluate.measure(options)
    text = report.table(class_names)
    with atomic_path(options.output / "report.png") as path:
        report.plot(class_names).savefig(path)
    for name, content in (("txt", text), ("json", report.to_json())):
        with atomic_path(options.output / f"report.{name}") as path:
            path.write_text(content + "\n", encoding="utf-8")
    files = "files: report.png (look at it), report.txt, report.json"
    return f"{text}\n\n{files}", report.to_dict()
