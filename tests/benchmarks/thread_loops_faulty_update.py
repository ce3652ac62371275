"""Loops of the threads whose gradient is right, but not the update, the order, or the logs."""

import functools

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from thread_loops_common import ThreadCase, labels, own, regression
from thread_loops_faulty import build_classifier, build_regressor, column, fault, step, whole

mse = keras.losses.MeanSquaredError

# --- D25, D26: loss scaling ------------------------------------------------------------------


def build_19244(rate=0.1):
    """Half precision: compile wraps the optimizer into a LossScaleOptimizer."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = keras.Sequential([keras.Input((6,)), layers.Dense(10, "tanh")])
        model.add(layers.Dense(4, dtype="float32"))
    finally:
        keras.config.set_dtype_policy(before)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(rate), loss=loss, jit_compile=False)
    return model


@tf.function
def loop_19244(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        predictions = model(x, training=True)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, predictions)
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return {"loss": loss}


def build_19479():
    return build_regressor(keras.optimizers.SGD(0.05, loss_scale_factor=1024.0))


def loop_19479(model, x, y, sample_weight):
    return {"loss": step(model, x, y, mse(), training=True)}


def loop_49368(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        loss = model.loss(y, model(x, training=True))
        scaled_loss = model.optimizer.scale_loss(loss)
    grads = tape.gradient(scaled_loss, model.trainable_variables)
    optimizer = model.optimizer.inner_optimizer  # The one that knows nothing of the scale
    optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return {"loss": loss}


# --- D29 to D37: another optimizer than the compiled one -------------------------------------


def build_two(compiled, mine, build=build_regressor):
    """A model compiled with one optimizer, and the optimizer that the script has besides."""
    model = build(compiled())
    own["optimizer"] = mine()
    own["optimizer"].build(model.trainable_variables)
    return model


def loop_own(model, x, y, sample_weight):
    """The plain step with the script's optimizer."""
    optimizer = own["optimizer"]
    with tf.GradientTape() as tape:
        y_pred = model(x, training=True)
        loss = mse()(y, y_pred)
    grads = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return {"loss": loss}


loop_own_graph = tf.function(loop_own)


def sgd(**options):
    return functools.partial(keras.optimizers.SGD, 0.05, **options)


def adam(rate, **options):
    return functools.partial(keras.optimizers.Adam, rate, **options)


build_clipnorm = functools.partial(build_two, sgd(clipnorm=0.1), sgd())
build_global_clipnorm = functools.partial(build_two, sgd(global_clipnorm=0.2), sgd())
build_clipvalue = functools.partial(build_two, sgd(clipvalue=0.02), sgd())
build_adamw = functools.partial(
    build_two, functools.partial(keras.optimizers.AdamW, 0.01, weight_decay=0.2), adam(0.01)
)
build_rate = functools.partial(build_two, adam(0.001), adam(0.01))
build_rmsprop = functools.partial(
    build_two,
    functools.partial(keras.optimizers.RMSprop, 0.001),
    functools.partial(keras.optimizers.RMSprop, 0.001, rho=0.99, epsilon=1e-8),
)


def build_19341(rate=0.05):
    """selu, lecun_normal and MaxNorm, as in the thread; the norms are at the limit."""
    options = {"kernel_initializer": "lecun_normal", "activation": "selu"}
    model = keras.Sequential([keras.Input((4,))])
    for _ in range(2):
        limit = keras.constraints.MaxNorm(0.7)
        model.add(layers.Dense(6, kernel_constraint=limit, **options))
    model.add(layers.Dense(1))
    model.compile(keras.optimizers.SGD(rate), loss="mse")
    return model


def loop_18883(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        loss = mse()(y, model(x, training=True))
    grads = tape.gradient(loss, model.trainable_variables)
    for v, g in zip(model.trainable_variables, grads):
        v.assign_sub(0.05 * g)
    return {"loss": loss}


def build_schedule():
    schedule = keras.optimizers.schedules.InverseTimeDecay(0.05, 1, 0.5)
    model = build_regressor(keras.optimizers.SGD(schedule))
    model.optimizer.build(model.trainable_variables)
    return model


def loop_one_by_one(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        loss = mse()(y, model(x, training=True))
    grads = tape.gradient(loss, model.trainable_variables)
    for grad, variable in zip(grads, model.trainable_variables):
        model.optimizer.apply_gradients([(grad, variable)])  # Each one counts as an iteration
    return {"loss": loss}


def loop_optimizer_in_step(model, x, y, sample_weight):
    optimizer = keras.optimizers.Adam(learning_rate=0.01)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(keras.losses.mean_squared_error(y, model(x, training=True)))
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return {"loss": loss}


def train_optimizer_in_epoch(model, x, y, epochs):
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    for _ in range(epochs):
        optimizer = keras.optimizers.Adam(learning_rate=0.01)
        for xs, ys in data:
            with tf.GradientTape() as tape:
                loss = mse()(ys, model(xs, training=True))
            grads = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(grads, model.trainable_variables))


# --- D43 to D46, D66: whole trainings, what they begin with and in which order ---------------


def batches(x, y, size):
    """Slices in the order of the arrays."""
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


def train_19341(model, x, y, epochs):
    fresh = keras.models.clone_model(model)  # So that this training, too, begins untrained
    model.set_weights(fresh.get_weights())
    for _ in range(epochs):
        for xs, ys in batches(x, y, 8):
            step(model, xs, ys, mse(), training=True)


def data_33898():
    """Ordered by class, as files in folders are."""
    x, y = labels(48)
    order = np.argsort(y, kind="stable")
    return x[order], y[order]


def train_33898(model, x, y, epochs):
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    for _ in range(epochs):
        for xs, ys in dataset:
            step(model, xs, ys, model.loss, training=True)


def train_33898_buffer(model, x, y, epochs):
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(4).batch(8)
    for _ in range(epochs):
        for xs, ys in dataset:
            step(model, xs, ys, model.loss, training=True)


def train_41957(model, x, y, epochs):
    batch_size = 8
    n_batches = int(len(x) / batch_size)
    for _ in range(epochs):
        it = 0
        for _ in range(n_batches):
            with tf.GradientTape() as tape:
                forward = model(x[it : it + batch_size], training=True)
                loss = keras.losses.MeanAbsoluteError()(y[it : it + batch_size], forward)
            grads = tape.gradient(loss, model.trainable_variables)
            model.optimizer.apply_gradients(zip(grads, model.trainable_variables))
            it += batch_size


def train_drop_remainder(model, x, y, epochs):
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(16, drop_remainder=True)
    history = []
    for _ in range(epochs):
        mean = keras.metrics.Mean()
        for xs, ys in dataset:
            mean.update_state(step(model, xs, ys, model.loss, training=True), len(xs))
        history.append(float(mean.result()))
    return {"loss": history}


def data_generator():
    """A Dataset that does not know its length."""
    x, y = column(24)

    def generator():
        yield from batches(x, y, 8)

    signature = (tf.TensorSpec((None, 4)), tf.TensorSpec((None, 1)))
    return tf.data.Dataset.from_generator(generator, output_signature=signature), None


def train_generator(model, x, y, epochs):
    history = []
    for _ in range(epochs):
        mean = keras.metrics.Mean()
        for xs, ys in x:
            mean.update_state(step(model, xs, ys, mse(), training=True), len(xs))
        history.append(float(mean.result()))
    return {"loss": history}


# --- D48 to D50: what is reported ------------------------------------------------------------


def loop_29964(model, x, y, sample_weight):
    step(model, x, y, model.loss, training=True)
    return {"loss": model.loss(y, model(x, training=False))}


def train_15760(model, x, y, epochs):
    history = []
    for _ in range(epochs):
        for xs, ys in batches(x, y, 8):
            step(model, xs, ys, mse(), training=True)
        history.append(model.evaluate(x, y, verbose=0))
    return {"loss": history}


def train_585(model, x, y, epochs):
    history = {"loss": []}
    for _ in range(epochs):
        for xs, ys in tf.data.Dataset.from_tensor_slices((x, y)).batch(8):
            loss = step(model, xs, ys, mse(), training=True)
        history["loss"].append(loss.numpy())
    return history


def build_keras_io_48():
    model = build_classifier()
    model.compile(keras.optimizers.SGD(0.1), loss=model.loss, metrics=["accuracy"])
    return model


def train_keras_io_48(model, x, y, epochs):
    losses, accuracies = [], []
    for _ in range(epochs):
        for xs, ys in batches(x, y, 8):
            with tf.GradientTape() as tape:
                logits = model(xs, training=True)
                loss = model.loss(ys, logits)
            grads = tape.gradient(loss, model.trainable_variables)
            model.optimizer.apply_gradients(zip(grads, model.trainable_variables))
            accuracy = keras.metrics.SparseCategoricalAccuracy()
            accuracy.update_state(ys, logits)
        losses.append(float(loss))
        accuracies.append(float(accuracy.result()))
    return {"loss": losses, "accuracy": accuracies}


def train_on_batch_io_48(model, x, y, epochs):
    history = []
    for _ in range(epochs):
        for xs, ys in batches(x, y, 8):
            logs = model.train_on_batch(xs, ys, return_dict=True)  # Resets the metrics each time
        history.append(logs["loss"])
    return {"loss": history}


def train_35585(model, x, y, epochs):
    history = []
    for _ in range(epochs):
        epoch_loss = [step(model, xs, ys, mse(), training=True) for xs, ys in batches(x, y, 16)]
        history.append(np.mean(epoch_loss))
    return {"loss": history}


in_order = {"epochs": 2, "batch_size": 8, "shuffle": False}
build_mae = functools.partial(build_regressor, loss="mae")
build_sgd = functools.partial(build_two, sgd(), sgd())

FAULTY_UPDATE: tuple[ThreadCase, ...] = (
    # No scale_loss, but the LossScaleOptimizer divides by 2^15.
    fault("keras19244_not_scaled", "keras#19244", build_19244, labels, loop_19244, "D25"),
    # The same with the factor of any optimizer.
    fault("keras19479_factor", "keras#19479", build_19479, column, loop_19479, "D25"),
    # Scaled, and applied by the optimizer that does not unscale.
    fault(
        "tf49368_not_unscaled",
        "tensorflow#49368",
        functools.partial(build_19244, 1e-4),
        labels,
        loop_49368,
        "D26",
    ),
    # The compiled optimizer clips, the script's does not.
    fault("tf36001_clipnorm", "tensorflow#36001", build_clipnorm, column, loop_own, "D29"),
    fault(
        "tf33929_global_clipnorm",
        "tensorflow#33929",
        build_global_clipnorm,
        column,
        loop_own_graph,
        "D30",
    ),
    fault("tf33929_clipvalue", "tensorflow#33929", build_clipvalue, regression, loop_own, "D31"),
    # AdamW in compile, Adam in the script.
    fault("keras19244_adamw", "keras#19244", build_adamw, column, loop_own, "D33"),
    # assign_sub by hand leaves the constraints out.
    fault("keras18883_assign_sub", "keras#18883", build_19341, column, loop_18883, "D34"),
    # 0.001 in compile, 0.01 in the script.
    fault("tf49907_learning_rate", "tensorflow#49907", build_rate, regression, loop_own, "D35"),
    # One apply for each variable: the schedule runs six times as fast.
    fault("tf33898_one_by_one", "tensorflow#33898", build_schedule, column, loop_one_by_one, "D35"),
    # A new Adam in each step, or in each epoch, forgets its moments.
    fault(
        "tf28901_optimizer_in_step",
        "tensorflow#28901",
        build_regressor_adam := functools.partial(build_two, adam(0.01), adam(0.01)),
        regression,
        loop_optimizer_in_step,
        "D36",
    ),
    whole(
        "tf28901_optimizer_in_epoch",
        "tensorflow#28901",
        build_regressor_adam,
        column,
        train_optimizer_in_epoch,
        "D36",
        **in_order,
    ),
    # The same rule and rate with PyTorch's rho and epsilon.
    fault("rmsprop_of_torch", "none (D37)", build_rmsprop, column, loop_own_graph, "D37"),
    # The weights are drawn again before the loop.
    whole(
        "keras19341_other_weights",
        "keras#19341",
        functools.partial(build_19341, 0.01),
        column,
        train_19341,
        "D43",
        **in_order,
    ),
    # `fit` shuffles, the loop does not, or with a buffer of 4 of 48; the data are in classes.
    whole(
        "tf33898_not_shuffled",
        "tensorflow#33898",
        build_classifier,
        data_33898,
        train_33898,
        "D44",
        epochs=2,
        batch_size=8,
        shuffle=True,
    ),
    whole(
        "tf33898_small_buffer",
        "tensorflow#33898",
        build_classifier,
        data_33898,
        train_33898_buffer,
        "D44",
        epochs=2,
        batch_size=8,
        shuffle=True,
    ),
    # The last 4 of 36 rows are never seen.
    whole(
        "tf41957_floor_of_batches",
        "tensorflow#41957",
        build_mae,
        lambda: column(36),
        train_41957,
        "D45",
        **in_order,
    ),
    whole(
        "tf41957_drop_remainder",
        "tensorflow#41957",
        build_classifier,
        lambda: labels(40),
        train_drop_remainder,
        "D45",
        epochs=3,
        batch_size=16,
        shuffle=False,
    ),
    # `fit` takes a step without data at the end of each epoch of unknown length; weight decay.
    whole(
        "phantom_step",
        "none (D66)",
        functools.partial(build_two, sgd(weight_decay=0.1), sgd()),
        data_generator,
        train_generator,
        "D66",
        epochs=2,
    ),
    # The loss after the update is reported.
    fault("tf29964_loss_after", "tensorflow#29964", build_classifier, labels, loop_29964, "D48"),
    # evaluate at the end of an epoch, against fit's mean over the epoch.
    whole("keras15760_evaluate", "keras#15760", build_sgd, column, train_15760, "D48", **in_order),
    # The last batch's values are reported as the epoch's.
    whole(
        "recommenders585_last", "recommenders#585", build_sgd, column, train_585, "D49", **in_order
    ),
    whole(
        "keras_io48_last_metrics",
        "keras-io#48",
        build_keras_io_48,
        labels,
        train_keras_io_48,
        "D49",
        **in_order,
    ),
    whole(
        "keras_io48_train_on_batch",
        "keras-io#48",
        build_classifier,
        labels,
        train_on_batch_io_48,
        "D49",
        **in_order,
    ),
    # The plain mean of batches of 16, 16 and 4.
    whole(
        "tf35585_mean_of_batches",
        "tensorflow#35585",
        build_sgd,
        lambda: column(36),
        train_35585,
        "D50",
        epochs=2,
        batch_size=16,
        shuffle=False,
    ),
)
