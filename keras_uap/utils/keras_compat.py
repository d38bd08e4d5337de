"""The private names of Keras in use, each of them once.

Keras may rename or drop them in any release. An override of a method that no
longer exists is then silently never called. `tests/utils/test_keras_compat.py`
reports which one is gone.
"""

import keras
import tensorflow as tf
from keras.src.backend.common.symbolic_scope import in_symbolic_scope
from keras.src.trainers.compile_utils import MetricsList


def check_backend():
    """Raises ValueError unless Keras runs on TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "keras_uap needs Keras on the TensorFlow backend. Received: "
            f"KERAS_BACKEND={keras.backend.backend()!r}. Set "
            "KERAS_BACKEND=tensorflow before importing keras."
        )


class TrainerHooks:
    """Mixin for a `keras.Model` that is built before it is given data."""

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras would run a batch through the model, averaged over the workers,
        # which fails for a batch of several parts.
        if data_batch is not None:
            self._before_batch(*data_batch)
        self._build_optimizer()

    def _build_optimizer(self):
        # A loaded file restores only variables that exist.
        if not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def _before_batch(self, x, y, sample_weight):
        """Called before `train_on_batch` and `test_on_batch`."""

    def _get_metrics_result_or_logs(self, logs):
        # Keras reads results off the metrics only if all of them are in the
        # logs. Ours depend on the update, the target and the labels.
        results = {m.name: m.result() for m in self.metrics if m.name in logs}
        return results or logs

    def _for_workers(self, logs):
        # Over several workers, Keras 3.15 takes the mean of logs over axis 0,
        # which scalars lack.
        if isinstance(
            self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy
        ):
            return {name: value[tf.newaxis] for name, value in logs.items()}
        return logs


def averages(optimizer):
    """The moving averages that an optimizer keeps of what it moves."""
    own = list(getattr(optimizer, "_model_variables_moving_average", ()))
    wrapped = list(getattr(optimizer, "optimizers", ()))
    if hasattr(optimizer, "inner_optimizer"):
        wrapped.append(optimizer.inner_optimizer)
    return sum(map(averages, wrapped), own)


def is_validation(evaluate_arguments):
    """Whether `fit` calls `evaluate`, on data that it has checked before."""
    return bool(evaluate_arguments.get("_use_cached_eval_dataset"))


def start_at(model, epoch):
    """Makes the `fit` that has just begun continue at an epoch.

    Keras keeps that for the next `fit` too, until it is set to `None`.
    """
    # As Keras' own BackupAndRestore does it; `fit` has no other way in.
    model._initial_epoch = epoch


def is_called_by_another(layer):
    """Whether a layer is being built in the call of another, of a model."""
    entry = layer._get_call_context().entry_layer
    # Keras made a context if there was no call yet.
    layer._maybe_reset_call_context()
    # There is no call either while Keras builds a model by running it.
    return entry is not layer or in_symbolic_scope()


def higher_is_better(metric):
    """Returns a metric whose direction Keras' callbacks know."""
    metric._direction = "up"
    return metric


def monitored(metrics):
    """The entry of `model.metrics` in which callbacks find the direction.

    Args:
        metrics: List of metrics, each from `higher_is_better`.
    """
    # Callbacks look into the lists that `compile` makes, nowhere else.
    return MetricsList(metrics, name="monitored")


def all_layers(model):
    """The layers of a model and of those inside it, in a flat sequence."""
    return model._flatten_layers()


def last_operation(tensor):
    """The operation that made a symbolic tensor.

    Returns:
        The layer or operation; its node, with `arguments` and `input_tensors`;
        and which of its outputs the tensor is.
    """
    operation, node_index, tensor_index = tensor._keras_history
    return operation, operation._inbound_nodes[node_index], tensor_index


def functional(model):
    """The Functional model that a Functional or Sequential model runs."""
    return getattr(model, "_functional", model)


def graph_nodes(model):
    """Each call of a layer or operation, from the inputs to the outputs."""
    depths = functional(model)._nodes_by_depth
    return [node for depth in sorted(depths)[::-1] for node in depths[depth]]


class ReplacingModel(keras.Model):
    """Runs the layer graph of a model, with some operations replaced.

    Args:
        model: Functional or Sequential model.
        replaced: Dictionary from the id of an operation to its replacement.
    """

    def __init__(self, model, replaced):
        graph = functional(model)
        # An automatic name would shift the numbers of the caller's models.
        super().__init__(graph.input, graph.output, name=model.name)
        self.dtype_policy = model.dtype_policy
        # Keras would track the layers in a dictionary.
        self._replacement = lambda each: replaced.get(id(each), each)

    def call(self, inputs, training=False, mask=None):
        # The folded weights hold in inference only.
        return super().call(inputs, training=False, mask=mask)

    def _run_through_graph(self, inputs, operation_fn=None, call_fn=None):
        if call_fn is not None:  # The constructor checks the graph.
            return super()._run_through_graph(inputs, call_fn=call_fn)
        return super()._run_through_graph(
            inputs, lambda each: operation_fn(self._replacement(each))
        )
