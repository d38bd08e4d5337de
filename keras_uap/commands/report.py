"""`report`: a page about a saved perturbation."""

from keras_uap.commands import console, evaluate


def run(options):
    console.say("1/2", "measuring")
    report, class_names = evaluate.measure(options)
    text = f"{report.table(class_names)}\n\n{evaluate.meaning(report)}"
    folder = options.output
    console.say("2/2", f"writing to {folder.resolve()}")
    console.write_figure(folder / "report.png", report.plot(class_names))
    console.write_text(folder / "report.txt", text)
    console.write_text(folder / "report.json", report.to_json())
    files = "files: report.png (look at it), report.txt, report.json"
    return f"{text}\n\n{files}", report.to_dict()
