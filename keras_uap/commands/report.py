"""`report`: a page about a saved perturbation."""

from keras_uap.commands import console, evaluate
from keras_uap.commands.options import add_output

HELP = "Write a page about a saved perturbation."
EXAMPLE = """\
python -m keras_uap report --model classifier.keras \\
      --perturbation result/uap.npz --images other_photos/ --output page"""


def add_arguments(parser):
    evaluate.add_arguments(parser)
    add_output(parser)


def run(options):
    console.make_folder(options.output)
    report, class_names = evaluate.measure(options)
    text = report.table(class_names)
    folder = options.output
    console.write_figure(folder / "report.png", report.plot(class_names))
    console.write_text(folder / "report.txt", text)
    console.write_text(folder / "report.json", report.to_json())
    files = "files: report.png (look at it), report.txt, report.json"
    return f"{text}\n\n{files}", report.to_dict()
