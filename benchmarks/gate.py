"""How often the gate of `Audit.check` fails a build, where it should and not.

    python benchmarks/gate.py

A small CNN is trained on Fashion-MNIST for 3 epochs and audited with seed 0 and
the quick budget, on 3,000 test images: 750 of them are held out. This audit is
the baseline of 20 others of the same classifier, with other seeds. Each of them
that fails is a false alarm. Then the CNN is hardened as in
`harden_fashion_mnist.py`. With an audit of that as the baseline, each of the 20
that does not fail is a lost gain that nobody notices.

`--quick` only checks that it runs.
"""

import argparse

import keras
from common import fashion_mnist, say, table
from harden_fashion_mnist import (
    EPSILON,
    QUICK,
    copy_of,
    distill,
    make_classifier,
    train,
)

import keras_uap


def fails(audit, baseline):
    try:
        audit.check(baseline=baseline)
    except keras_uap.AuditFailed:
        return True
    return False


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    builds, count = (1, 80) if options.quick else (20, 3000)
    size = QUICK if options.quick else {"train": 20_000, "epochs": 3}
    data = fashion_mnist(f"train[:{size['train']}]", f"test[:{count}]")

    def audited(model, seed):
        found = keras_uap.audit(
            model, data[2], None, EPSILON, budget="quick", seed=seed, verbose=0
        )
        say(f"seed {seed}: {found!r}")
        return found

    keras.utils.set_random_seed(0)
    plain = make_classifier()
    train(plain, *data[:2], size["epochs"])
    hardened = copy_of(plain)
    distill(hardened, data, size, seed=0, pool_size=2)
    models = {"the same": plain, "hardened": hardened}
    baselines = {name: audited(model, 0) for name, model in models.items()}
    audits = [audited(plain, seed) for seed in range(1, builds + 1)]
    rates = [each.fooling_rate for each in audits]
    rows = [
        {
            "baseline": name,
            "its fooling rate": each.fooling_rate,
            "its interval": "{:.1%} to {:.1%}".format(*each.fooling_interval),
            "fooling rates": f"{min(rates):.1%} to {max(rates):.1%}",
            "held-out images": each.num_images,
            "builds": len(audits),
            "failed": sum(fails(audit, each) for audit in audits),
        }
        for name, each in baselines.items()
    ]
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()
