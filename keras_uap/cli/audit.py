"""`audit`: how fragile is a classifier, with nothing to tune."""

import dataclasses
import pathlib

from keras_uap.cli import console, loading
from keras_uap.evaluation import audit as auditing
from keras_uap.evaluation import gate
from keras_uap.perturbations.interchange import save_perturbation


def run(options):
    ball = loading.make_ball(options)
    # What the limits need is checked before the audit, which takes minutes.
    limits = options.fail_above, options.baseline, options.tolerance
    card = {
        "norm": ball.norm,
        "epsilon": ball.epsilon,
        "classifier": pathlib.Path(options.model).name,
        "classifier_range": loading.value_range(options),
    }
    baseline = gate.check_limits(*limits, card)
    console.say("1/3", "loading the model and the images")
    classifier = loading.attach(loading.load_model(options.model), options)
    class_names = loading.load_class_names(options, classifier)
    parts = loading.load_parts(options, classifier)
    console.say("2/3", "attacking; the strongest attack counts")
    interrupted = None
    try:
        audit = auditing.audit_pictures(
            classifier,
            parts,
            ball,
            loading.PIXELS,
            options.budget,
            options.seed,
            verbose=1,
            batch_size=options.batch_size,
        )
    except auditing.AuditInterrupted as error:
        audit, interrupted = error.audit, error
    folder = options.output
    console.say("3/3", f"writing to {folder.resolve()}")
    audit = dataclasses.replace(audit, card=audit.card | card)
    save_perturbation(folder / "uap.npz", audit.perturbation, audit.card)
    text = audit.table(class_names)
    console.write(folder / "audit.txt", text)
    console.write(folder / "audit.json", audit.to_json())
    console.write(folder / "audit.png", audit.plot(class_names))
    audit.save_html(folder / "audit.html", class_names)
    if options.card:
        audit.save_card(options.card, options.call)
    if interrupted:
        raise console.Interrupted(
            f"{interrupted}; what they found is in {folder / 'audit.html'}"
        )
    rules = gate.rules(audit, options.fail_above, baseline, options.tolerance)
    if options.junit:
        gate.write_junit(options.junit, rules, audit.seconds)
    files = "files: audit.html (open in a browser), .png, .txt, .json, uap.npz"
    result = f"{text}\n\n{files}", audit.to_dict()
    try:
        gate.check(rules)
    except gate.AuditFailed as error:
        raise console.GateFailed(str(error), result) from error
    return result
