"""`report`: a page about a saved perturbation."""

import pathlib

from keras_uap.cli import console, evaluate


def run(options):
    console.say("1/2", "measuring")
    paths = [options.perturbation]
    (report,), class_names, (card,) = evaluate.measure(options, paths)
    text = evaluate.text_of(report, class_names)
    folder = options.output
    console.say("2/2", f"writing to {folder.resolve()}")
    console.write(folder / "report.png", report.plot(class_names))
    console.write(folder / "report.txt", text)
    console.write(folder / "report.json", report.to_json())
    # The card names the classifier that the perturbation was found on.
    measured = {"classifier": pathlib.Path(options.model).name}
    measured["found_on"] = card.get("classifier")
    report.save_html(folder / "report.html", class_names, card | measured)
    files = "files: report.html (open in a browser), .png, .txt, .json"
    return f"{text}\n\n{files}", report.to_dict()
