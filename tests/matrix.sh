#!/usr/bin/env bash
# Runs the fast tests with the lowest and the highest TensorFlow and Keras that
# setup.cfg allows, each in a virtual environment of its own:
#
#     tests/matrix.sh [FOLDER]
#
# FOLDER keeps the environments from one run to the next.
#
# What breaks below: up to 3.13, Keras returns tensors from evaluate() instead
# of floats, and wraps a layer's ValueError in a RuntimeError.
set -euo pipefail -o noglob
cd "$(dirname "$0")/.."
folder=${1:-$(mktemp -d)}
lowest() { sed -n "s/^ *$1>=\([0-9.]*\).*/\1/p" setup.cfg | head -n 1; }
pairs="$(lowest tensorflow).*:$(lowest keras).* :"

status=0
for pair in $pairs; do
    tensorflow=${pair%%:*} keras=${pair##*:}
    name=${tensorflow:-highest}-${keras:-highest}
    environment=$folder/${name//\*/x}
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet '.[test]' \
        "tensorflow${tensorflow:+==$tensorflow}" "keras${keras:+==$keras}"
    echo "== $("$environment/bin/pip" freeze | grep -E '^(tensorflow|keras)==' \
        | tr '\n' ' ')"
    # Not the sources beside the tests, but what was installed; in the
    # processes that tests start, too.
    PYTHONSAFEPATH=1 "$environment/bin/python" -m pytest -q \
        -p no:cacheprovider tests || status=1
done
exit $status
