"""The private names of Keras and TensorFlow in use, each of them once.

Keras may rename or drop them in any release without a word. An override of a
method that no longer exists is then silently never called. So they are here
and nowhere else, and `tests/utils/test_keras_compat.py` names those that are
gone.
"""

import tensorflow as tf
from keras.src.backend.common.symbolic_scope import in_symbolic_scope
from keras.src.trainers.compile_utils import MetricsList


class TrainerHooks:
    """Mixin for a `keras.Model` that is built before it is given data."""

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras would take a batch and run it through the model, averaged over
        # the workers, which fails for a batch of several parts.
        if data_batch is not None:
            self.on_one_batch(*data_batch)
        self.build_optimizer()

    def build_optimizer(self):
        """Gives the optimizer its variables, so that a file's find a place."""
        if not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def on_one_batch(self, x, y, sample_weight):
        """Called before `train_on_batch` and `test_on_batch`."""

    def _get_metrics_result_or_logs(self, logs):
        # Keras reads results off the metrics only if all of them are in the
        # logs. Ours depend on the update, the target and the labels.
        results = {m.name: m.result() for m in self.metrics if m.name in logs}
        return results or logs

    def for_workers(self, logs):
        """Gives logs the shape in which Keras averages them over workers."""
        # Keras 3.15 takes the mean over axis 0 there, which scalars lack.
        if isinstance(
            self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy
        ):
            return {name: value[tf.newaxis] for name, value in logs.items()}
        return logs


def averages(optimizer):
    """The moving averages that an optimizer keeps of what it moves."""
    wrapped = [
        getattr(optimizer, "inner_optimizer", None),
        *getattr(optimizer, "optimizers", ()),
    ]
    found = [*getattr(optimizer, "_model_variables_moving_average", ())]
    for inner in wrapped:
        found += [] if inner is None else averages(inner)
    return found


def is_validation(evaluate_arguments):
    """Whether `fit` calls `evaluate`, on data that it has looked at before."""
    return bool(evaluate_arguments.get("_use_cached_eval_dataset"))


def start_at(model, epoch):
    """Makes the `fit` that has just begun go on at an epoch.

    Keras keeps that for the next `fit` too, until it is set to `None`.
    """
    # As Keras' own BackupAndRestore does it; `fit` has no other way in.
    model._initial_epoch = epoch


def is_called_by_another(layer):
    """Whether a layer is being built in the call of another, of a model."""
    entry = layer._get_call_context().entry_layer
    # Nothing stays where there was no call yet.
    layer._maybe_reset_call_context()
    # Nor is there one while Keras builds a model by running it.
    return entry is not layer or in_symbolic_scope()


def higher_is_better(metric):
    """Returns a metric of which Keras' callbacks know the direction."""
    metric._direction = "up"
    return metric


def monitored(metrics):
    """What `model.metrics` must hold for callbacks to find the direction.

    Args:
        metrics: List of metrics, each from `higher_is_better`.
    """
    # Callbacks look into the lists that `compile` makes, nowhere else.
    return MetricsList(metrics, name="monitored")


def all_layers(model):
    """The layers of a model and of those inside it, in a flat sequence."""
    return model._flatten_layers()


def last_operation(tensor):
    """What made a symbolic tensor.

    Returns:
        The layer or operation; its node, with `arguments` and `input_tensors`;
        and which of its outputs the tensor is.
    """
    operation, node_index, tensor_index = tensor._keras_history
    return operation, operation._inbound_nodes[node_index], tensor_index


def _generates(graph):
    """Whether the bytes of a graph name the operation of a generator."""
    return b"GeneratorDataset" in graph


def has_generator(data):
    """Whether a Python generator is somewhere behind a `tf.data.Dataset`."""
    for wrapper in data._functions():
        function = wrapper.function
        if (
            b"GeneratorDataset"
            in function.graph.as_graph_def().SerializeToString()
        ):
            return True
        if any(x.dtype == tf.variant for x in function.captured_inputs):
            # A data set that a function has from outside: only its own graph
            # tells, which holds a copy of all data.
            graph = tf.raw_ops.DatasetToGraphV2(
                input_dataset=tf.data.experimental.to_variant(data),
                external_state_policy=1,  # There is state, and it may stay.
            )
            return _generates(graph.numpy())
    return any(has_generator(each) for each in data._inputs())
