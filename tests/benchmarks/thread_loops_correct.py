"""The mended loops of the threads, in many styles: each does what `fit` does."""

import functools

import keras
import tensorflow as tf
from keras import layers, ops
from thread_loops_common import (
    ThreadCase,
    binary,
    case,
    images,
    labels,
    own,
    regression,
    tokens,
    weighted,
)
from thread_loops_faulty import (
    build_15546,
    build_16529,
    build_17260,
    build_28394,
    build_31184,
    build_32127,
    build_32869,
    build_33205,
    build_35533,
    build_35585,
    build_40391,
    build_43902_towers,
    build_46782,
    build_57392,
    build_classifier,
    build_regressor,
    build_tagger,
    build_yolov4,
    column,
    data_17260,
    data_28394,
    data_32127,
    data_35533,
    data_43902_towers,
    smooth_l1_15546,
    step,
)
from thread_loops_faulty_update import (
    batches,
    build_19244,
    build_19341,
    build_19479,
    build_keras_io_48,
    build_mae,
    build_sgd,
    build_two,
    loop_own,
    loop_own_graph,
    mse,
    sgd,
)

# --- Losses, shapes, calls -------------------------------------------------------------------


def mend_28901(model, x, y, sample_weight):
    y = tf.reshape(y, (-1, 1))
    with tf.GradientTape() as tape:
        prediction = model(x, training=True)
        loss = tf.reduce_mean(tf.square(y - prediction))
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return {"loss": loss}


def mend_28394(model, x, y, sample_weight):
    def error(outputs):
        return tf.reduce_mean(tf.abs(y - tf.squeeze(outputs, axis=-1)))

    with tf.GradientTape() as tape:
        loss = error(model(x, training=True))
    grads = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(grads, model.trainable_variables))


@tf.function
def mend_40391(model, x, y, sample_weight):
    with tf.GradientTape(persistent=True) as tape:
        loss = keras.losses.MeanSquaredError()(y, model(x))  # Squeezes by itself
    grads = [tape.gradient(loss, v) for v in (model.b, model.w)]  # Another order, kept
    model.optimizer.apply_gradients(zip(grads, (model.b, model.w)))
    return {"loss": loss}


def mend_46782(model, x, y, epochs):
    dataset = tf.data.Dataset.from_tensor_slices((x, y[:, None])).batch(8)
    for _ in range(epochs):
        for xs, ys in dataset:
            step(model, xs, ys, mse(), training=True)


class Mended16836(keras.Model):
    """The guide's overridden step, with targets of the outputs' shape."""

    def train_step(self, data):
        x, y = data
        y = ops.expand_dims(y, -1)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = tf.reduce_mean(tf.math.squared_difference(y_pred, y))
        trainable_vars = self.trainable_variables
        gradients = tape.gradient(loss, trainable_vars)
        self.optimizer.apply(gradients, trainable_vars)
        self.mse_tracker.update_state(loss)
        return {"loss": self.mse_tracker.result()}

    @property
    def metrics(self):
        return [self.mse_tracker]


def build_mended_16836():
    inputs = keras.Input((5,))
    model = Mended16836(inputs, layers.Dense(1)(layers.Dense(10, "relu")(inputs)))
    model.mse_tracker = keras.metrics.Mean(name="loss")
    model.compile(keras.optimizers.Adam(0.01), loss="mean_squared_error")
    return model


def mend_37581(model, x, y, sample_weight):
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).batch(len(x))
    for xs, ys in dataset:  # Shuffled together: the same batch in another order
        loss = step(model, xs, ys, mse(), training=True)
    return {"loss": loss}


def mend_yolov4(model, x, y, sample_weight):
    optimizer, loss_object = own["yolov4"]
    with tf.GradientTape() as tape:
        pred_result = model(x, training=True)
        total_loss = loss_object(y, pred_result) + tf.add_n(model.losses)
    gradients = tape.gradient(total_loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return {"loss": total_loss}


def mend_l2_by_hand(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        loss = model.loss(y, model(x, training=True))
        for v in model.trainable_variables:
            if "kernel" in v.name:
                loss += 0.01 * tf.reduce_sum(tf.square(v))
    grads = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return {"loss": loss}


def mend_57392(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        logits = model(x, training=True)
        loss = model.loss(y, logits) + sum(model.losses)
    grads = tape.gradient(loss, model.trainable_weights)
    model.optimizer.apply_gradients(zip(grads, model.trainable_weights))
    return {"loss": loss}


def mend_mask_by_hand(model, x, y, sample_weight):
    def loss_function(real, pred):
        mask = tf.cast(tf.math.not_equal(x, 0), pred.dtype)
        loss_ = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=real, logits=pred)
        return tf.reduce_sum(loss_ * mask) / tf.reduce_sum(mask)

    return {"loss": step(model, x, y, loss_function, training=True)}


@tf.function
def mend_32127(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        reconstructed = model(x, training=True)
        loss = mse()(x, reconstructed)
        loss += sum(model.losses)
    grads = tape.gradient(loss, model.trainable_weights)
    model.optimizer.apply_gradients(zip(grads, model.trainable_weights))
    return {"loss": loss}


@tf.function
def mend_31184(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        predictions = model(x, training=True)
        loss = keras.losses.SparseCategoricalCrossentropy()(y, predictions)
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return {"loss": loss}


def build_31184_adam():
    model = build_31184()
    model.compile(keras.optimizers.Adam(0.001), loss=model.loss, metrics=["accuracy"])
    return model


def mend_33771(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        predictions = model(x, training=True)
        loss = keras.losses.SparseCategoricalCrossentropy()(y, predictions)
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    right = tf.cast(tf.argmax(predictions, axis=1), y.dtype) == y
    return {"loss": loss, "accuracy": tf.reduce_mean(tf.cast(right, tf.float32))}


def build_frozen():
    """Transfer learning: the base is frozen, its BatchNormalization with it."""
    model = build_31184(0.3)
    model.layers[0].trainable = False
    model.compile(keras.optimizers.Adam(0.01), loss=model.loss)
    return model


def mend_35533(model, x, y, sample_weight):
    loss_object = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {"loss": step(model, x, y, loss_object, training=True)}


mend_35533_graph = tf.function(mend_35533)


def mend_35533_functional(model, x, y, sample_weight):
    def loss_fn(target, logits):
        losses = keras.losses.sparse_categorical_crossentropy(target, logits, from_logits=True)
        return tf.reduce_mean(losses)

    step(model, x, y, loss_fn, training=True)


@tf.function(jit_compile=True)
def mend_35585(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        logits = model(x, training=True)
        loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=logits))
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply(gradients, model.trainable_variables)
    return {"loss": loss}


def mend_32869(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        loss = keras.losses.SparseCategoricalCrossentropy()(y, model(x, training=True))
    grads = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return {"loss": loss}


def mend_15546(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        per_example = smooth_l1_15546(y, model(x, training=True))
        loss = tf.reduce_sum(per_example) * (1.0 / len(x))
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))


def mend_16529(model, x, y, sample_weight):
    loss_fn = keras.losses.MeanSquaredError(reduction=None)
    with tf.GradientTape() as tape:
        data_loss = tf.reduce_mean(loss_fn(y, model(x, training=True)))
        loss = data_loss + tf.reduce_sum(tf.stack(model.losses))
    grads = tape.gradient(loss, model.trainable_weights)
    model.optimizer.apply(grads, model.trainable_weights)
    return {"loss": loss}


class Mended17260(keras.Model):
    """The functional loss, averaged; metrics as in the guide."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = tf.reduce_mean(keras.losses.mean_squared_error(y, y_pred))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights))
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {m.name: m.result() for m in self.metrics}


def build_mended_17260():
    inputs = keras.Input((4,))
    model = Mended17260(inputs, layers.Dense(1)(layers.Dense(8, "relu")(inputs)))
    model.compile(keras.optimizers.SGD(0.01), loss="mse", metrics=["mae"])
    return model


def mend_17260_heads(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        age, pose = model(x, training=True)
        loss = 0.2 * tf.reduce_mean((y[0] - age) ** 2) + 1.5 * tf.reduce_mean(tf.abs(y[1] - pose))
    grads = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return {"loss": loss}


def mend_compute_loss(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        y_pred = model(x, training=True)
        loss = model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)
    grads = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return {"loss": loss}


# --- Weights and accumulation ----------------------------------------------------------------


class Mended43902(keras.Model):
    """The third of the data is a weight for each row."""

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred, sample_weight=sample_weight)
        return {m.name: m.result() for m in self.metrics}


def build_mended_43902():
    inputs = keras.Input((6,))
    outputs = layers.Dense(1, "sigmoid")(layers.Dense(8, "relu")(inputs))
    model = Mended43902(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.1), loss="binary_crossentropy", weighted_metrics=["mae"])
    return model


def mend_taumltools(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        losses = keras.losses.mean_squared_error(y, model(x, training=True))
        loss = tf.reduce_sum(losses * sample_weight) / tf.cast(tf.shape(x)[0], tf.float32)
    grads = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return {"loss": loss}


@tf.function
def mend_15119(model, x, y, sample_weight):
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        loss = loss_fn(y, model(x, training=True), sample_weight=sample_weight)
    grads = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return {"loss": loss}


def mend_19308(model, x, y, sample_weight):
    variables = model.trainable_variables
    total = [tf.Variable(tf.zeros(v.shape), trainable=False) for v in variables]
    for xs, ys in tf.data.Dataset.from_tensor_slices((x, y)).batch(16):  # 16, 16 and 4 rows
        with tf.GradientTape() as tape:
            loss = mse()(ys, model(xs, training=True)) * (len(xs) / len(x))
        for t, g in zip(total, tape.gradient(loss, variables)):
            t.assign_add(g)
    model.optimizer.apply_gradients(zip(total, variables))


def mend_tokens(model, x, y, sample_weight):
    def loss_fn(real, logits):
        loss_ = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=real, logits=logits)
        return tf.reduce_mean(tf.reduce_sum(loss_, axis=1)) / logits.shape[1]

    return {"loss": step(model, x, y, loss_fn, training=True)}


# --- Precision, optimizers, variables --------------------------------------------------------


@tf.function
def mend_19244(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        predictions = model(x, training=True)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(y, predictions)
        scaled_loss = model.optimizer.scale_loss(loss)
    gradients = tape.gradient(scaled_loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return {"loss": loss}


def mend_19479(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        loss = mse()(y, model(x, training=True))
        scaled = loss * model.optimizer.loss_scale_factor
    grads = tape.gradient(scaled, model.trainable_variables)
    model.optimizer.apply(grads, model.trainable_variables)
    return {"loss": loss}


def build_bfloat16():
    """bfloat16 needs no loss scaling."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = keras.Sequential([keras.Input((6,)), layers.Dense(10, "relu")])
        model.add(layers.Dense(4, dtype="float32"))
    finally:
        keras.config.set_dtype_policy(before)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss=loss, jit_compile=False)
    return model


build_two_clipped = functools.partial(build_two, sgd(clipnorm=0.1), sgd(clipnorm=0.1))


def build_own_adamw():
    """The script's optimizer is made of the compiled one's configuration."""
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=0.3)
    model = build_regressor(optimizer)
    own["optimizer"] = type(optimizer).from_config(optimizer.get_config())
    own["optimizer"].build(model.trainable_variables)
    return model


@tf.function(jit_compile=True)
def mend_19341(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        loss = keras.losses.MeanSquaredError()(y, model(x, training=True))
    grads = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return {"loss": loss}


def mend_18883(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        loss = mse()(y, model(x, training=True))
    grads = tape.gradient(loss, model.trainable_variables)
    for v, g in zip(model.trainable_variables, grads):
        v.assign_sub(0.05 * g)
        if v.constraint is not None:
            v.assign(v.constraint(v))
    return {"loss": loss}


def mend_assign_sub(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        loss = mse()(y, model(x, training=True))
    for v, g in zip(model.weights, tape.gradient(loss, model.weights)):
        v.assign(v - model.optimizer.learning_rate * g)
    return {"loss": loss}


def mend_33205(model, x, y, sample_weight):
    with tf.GradientTape(persistent=True) as tape:
        features = model.features(x, training=True)
        loss = model.loss(y, model.head(features))
    for_features = tape.gradient(loss, model.features.trainable_variables)
    for_head = tape.gradient(loss, model.head.trainable_variables)
    del tape
    variables = model.features.trainable_variables + model.head.trainable_variables
    model.optimizer.apply_gradients(zip(for_features + for_head, variables))
    return {"loss": loss}


def mend_36694(model, x, y, sample_weight):
    def forward():
        return model.loss(y, model(x, training=True))

    def gradients():
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for v in model.trainable_variables:
                tape.watch(v.value)
            loss = forward()
        return loss, tape.gradient(loss, model.trainable_variables)

    def update():
        loss, grads = gradients()
        model.optimizer.apply_gradients(zip(grads, model.trainable_variables))
        return loss

    return {"loss": update()}


def mend_43902_towers(model, x, y, sample_weight):
    parts = [model.get_layer(name).trainable_variables for name in ("t1", "flair", "grade")]
    variables = sum(parts, [])
    with tf.GradientTape() as tape:
        loss = mse()(y, model(x, training=True))
    model.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
    return {"loss": loss}


def build_schedule():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 1, 0.5)
    return build_regressor(keras.optimizers.Adam(schedule))


# --- Whole trainings -------------------------------------------------------------------------


def mend_41957(model, x, y, epochs):
    for _ in range(epochs):
        for it in range(0, len(x), 8):
            with tf.GradientTape() as tape:
                forward = model(x[it : it + 8], training=True)
                loss = keras.losses.MeanAbsoluteError()(y[it : it + 8], forward)
            grads = tape.gradient(loss, model.trainable_variables)
            model.optimizer.apply_gradients(zip(grads, model.trainable_variables))


def mend_35585_mean(model, x, y, epochs):
    history = []
    for _ in range(epochs):
        total = 0.0
        for xs, ys in batches(x, y, 16):
            total += float(step(model, xs, ys, mse(), training=True)) * len(xs)
        history.append(total / len(x))
    return {"loss": history}


def mend_36192(model, x, y, epochs):
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    train_loss = keras.metrics.Mean()
    train_accuracy = keras.metrics.SparseCategoricalAccuracy()

    @tf.function
    def train_step(xs, ys):
        with tf.GradientTape() as tape:
            logits = model(xs, training=True)
            loss = model.loss(ys, logits)
        grads = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply_gradients(zip(grads, model.trainable_variables))
        train_loss.update_state(loss, sample_weight=tf.shape(xs)[0])
        train_accuracy.update_state(ys, logits)

    history = {"loss": [], "accuracy": []}
    for _ in range(epochs):
        train_loss.reset_state()
        train_accuracy.reset_state()
        for xs, ys in dataset:
            train_step(xs, ys)
        history["loss"].append(float(train_loss.result()))
        history["accuracy"].append(float(train_accuracy.result()))
    return history


def mend_own_adam(model, x, y, epochs):
    optimizer = keras.optimizers.Adam(0.01)  # Once, before the epochs
    for _ in range(epochs):
        for xs, ys in batches(x, y, 8):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((ys - model(xs, training=True)) ** 2)
            grads = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(grads, model.trainable_variables))


def mend_60(model, x, y, epochs):
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8).prefetch(1)
    graph_step = tf.function(step)
    for _ in range(epochs):
        for xs, ys in dataset:
            graph_step(model, xs, ys, model.loss, training=True)


def mend_train_on_batch(model, x, y, epochs):
    history = []
    for _ in range(epochs):
        logs = [model.train_on_batch(xs, ys, return_dict=True) for xs, ys in batches(x, y, 8)]
        history.append(sum(entry["loss"] for entry in logs) / len(logs))  # 4 batches of 8
    return {"loss": history}


def whole(name, thread, build, data, train, **options):
    options = {"epochs": 2, "batch_size": 8, "shuffle": False} | options
    """A whole training, in the order of the arrays."""
    return case(name, thread, build, data, train=train, options=options)


build_adam = functools.partial(build_regressor, None)
build_masked = functools.partial(build_57392, None)
classes = {0: 1.0, 1: 5.0, 2: 0.5, 3: 2.0}

CORRECT: tuple[ThreadCase, ...] = (
    case("ok_tf28901_reshape", "tensorflow#28901", build_adam, regression, mend_28901),
    case("ok_tf28394_squeeze", "tensorflow#28394", build_28394, data_28394, mend_28394),
    case(
        "ok_tf40391_loss_object",
        "tensorflow#40391",
        build_40391,
        lambda: regression(20, 3),
        mend_40391,
    ),
    whole("ok_tf46782_column", "tensorflow#46782", build_46782, regression, mend_46782),
    case(
        "ok_keras16836_expand",
        "keras#16836",
        build_mended_16836,
        lambda: regression(40, 5),
        None,
    ),
    case("ok_tf37581_together", "tensorflow#37581", build_sgd, column, mend_37581),
    case("ok_yolov4_add_n", "yolov4-tflite#369", build_yolov4, images, mend_yolov4),
    case("ok_tf33635_l2_by_hand", "tensorflow#33635", build_yolov4, images, mend_l2_by_hand),
    case("ok_tf57392_lstm", "tensorflow#57392", build_57392, tokens, mend_57392),
    case("ok_tf57392_mask_by_hand", "tensorflow#57392", build_masked, tokens, mend_mask_by_hand),
    case("ok_tf32127_add_loss", "tensorflow#32127", build_32127, data_32127, mend_32127),
    case("ok_tf31184_training", "tensorflow#31184", build_31184, images, mend_31184),
    case("ok_tf31184_adam", "tensorflow#31184", build_31184_adam, images, mend_33771),
    case("ok_tf33771_called_once", "tensorflow#33771", build_31184, images, mend_33771),
    case("ok_tf31184_frozen", "tensorflow#31184", build_frozen, images, mend_31184),
    case("ok_tf35533_dropout", "tensorflow#35533", build_35533, data_35533, mend_35533),
    case(
        "ok_tf35533_functional",
        "tensorflow#35533",
        build_classifier,
        labels,
        mend_35533_functional,
    ),
    case("ok_tf35585_jit", "tensorflow#35585", build_35585, binary, mend_35585),
    case(
        "ok_tf32869_logits_kept",
        "tensorflow#32869",
        build_32869,
        lambda: labels(scale=25.0),
        mend_32869,
    ),
    case("ok_keras15546_over_n", "keras#15546", build_15546, data_32127, mend_15546),
    case("ok_keras16529_mean", "keras#16529", build_16529, column, mend_16529),
    case("ok_keras17260_mean", "keras#17260", build_mended_17260, column, None),
    case("ok_keras17260_heads", "keras#17260", build_17260, data_17260, mend_17260_heads),
    case("ok_keras17260_compute", "keras#17260", build_17260, data_17260, mend_compute_loss),
    case(
        "ok_tf43902_step",
        "tensorflow#43902",
        build_mended_43902,
        lambda: weighted(binary()),
        None,
    ),
    case(
        "ok_taumltools90_by_n",
        "TauMLTools#90",
        build_sgd,
        lambda: weighted(column()),
        mend_taumltools,
    ),
    case(
        "ok_keras15119_class_weight",
        "keras#15119",
        build_classifier,
        labels,
        mend_15119,
        class_weight=classes,
    ),
    case(
        "ok_both_weights_compute_loss",
        "keras#15119",
        build_classifier,
        lambda: weighted(labels()),
        mend_compute_loss,
    ),
    case("ok_keras19308_uneven", "keras#19308", build_sgd, lambda: column(36), mend_19308),
    case("ok_tokens_mean", "tensorflow#57392", build_tagger, tokens, mend_tokens),
    case("ok_keras19244_scaled", "keras#19244", build_19244, labels, mend_19244),
    case("ok_keras19479_factor", "keras#19479", build_19479, column, mend_19479),
    case("ok_bfloat16", "tensorflow#49368", build_bfloat16, labels, mend_35533_graph),
    case("ok_tf36001_clipnorm", "tensorflow#36001", build_two_clipped, regression, loop_own_graph),
    case("ok_own_adamw_of_config", "keras#19244", build_own_adamw, column, loop_own),
    case("ok_keras19341_jit", "keras#19341", build_19341, column, mend_19341),
    case("ok_keras18883_constraint", "keras#18883", build_19341, column, mend_18883),
    case("ok_sgd_by_assign", "keras#18883", build_sgd, column, mend_assign_sub),
    case("ok_tf33205_two_parts", "tensorflow#33205", build_33205, labels, mend_33205),
    case("ok_tf36694_nested", "tensorflow#36694", build_classifier, labels, mend_36694),
    case(
        "ok_tf43902_towers",
        "tensorflow#43902",
        build_43902_towers,
        data_43902_towers,
        mend_43902_towers,
    ),
    case("ok_schedule", "tensorflow#33898", build_schedule, regression, mend_28901),
    whole(
        "ok_tf41957_all_rows",
        "tensorflow#41957",
        build_mae,
        lambda: column(36),
        mend_41957,
    ),
    whole(
        "ok_tf35585_weighted_mean",
        "tensorflow#35585",
        build_sgd,
        lambda: column(36),
        mend_35585_mean,
        batch_size=16,
    ),
    whole("ok_tf36192_metrics", "tensorflow#36192", build_keras_io_48, labels, mend_36192),
    whole("ok_tf49907_own_adam", "tensorflow#49907", build_adam, column, mend_own_adam, epochs=3),
    whole("ok_tf_keras60_dropout", "tf-keras#60", build_35533, data_35533, mend_60),
    whole("ok_keras_io48_on_batch", "keras-io#48", build_classifier, labels, mend_train_on_batch),
)
