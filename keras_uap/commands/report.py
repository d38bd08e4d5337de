"""`report`: a page about a saved perturbation."""

import pathlib

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
    report, class_names, card = evaluate.measure(options)
    text = report.table(class_names)
    folder = options.output
    console.write_figure(folder / "report.png", report.plot(class_names))
    console.write_text(folder / "report.txt", text)
    console.write_text(folder / "report.json", report.to_json())
    # The classifier of the card is the one that the perturbation was found on.
    measured = {"classifier": pathlib.Path(options.model).name}
    measured["found_on"] = card.get("classifier")
    report.save_html(folder / "report.html", class_names, card | measured)
    files = (
        "files: report.html (open it in a browser), report.png, report.txt,\n"
        "report.json"
    )
    return f"{text}\n\n{files}", report.to_dict()
