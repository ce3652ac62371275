"""Loops of the threads whose gradient is not that of `fit`: the loss, the call, the weights."""

import functools

import keras
import tensorflow as tf
from keras import layers
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

# --- D01, D02, D64: shapes and the order of the targets --------------------------------------


def build_regressor(optimizer=None, loss="mse", features=4):
    """The small regression network that most of the threads have."""
    model = keras.Sequential(
        [keras.Input((features,)), layers.Dense(16, "relu"), layers.Dense(8, "relu")]
    )
    model.add(layers.Dense(1))
    model.compile(optimizer or keras.optimizers.Adam(0.01), loss=loss)
    return model


def build_28901():
    model = build_regressor(keras.optimizers.Adam(0.01))
    own["28901"] = keras.optimizers.Adam(0.01)
    own["28901"].build(model.trainable_variables)
    return model


@tf.function
def loop_28901(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        prediction = model(x, training=True)
        loss = tf.reduce_mean(tf.square(y - prediction))
    gradients = tape.gradient(loss, model.trainable_variables)
    own["28901"].apply_gradients(zip(gradients, model.trainable_variables))
    return {"loss": loss}


def build_28394():
    model = keras.Sequential([keras.Input((10, 3)), layers.Conv1D(6, 3, activation="relu")])
    model.add(layers.GRU(5))
    model.add(layers.Dense(1))
    model.compile(keras.optimizers.Adam(0.005), loss="mae")
    return model


def data_28394():
    x, y = regression(24, 30)
    return x.reshape(24, 10, 3), y


def mae_28394(labels_, outputs):
    return tf.reduce_mean(tf.abs(labels_ - outputs))


def loop_28394(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        outputs = model(x, training=True)
        error = mae_28394(y, outputs)
    grads = tape.gradient(error, model.trainable_variables)
    model.optimizer.apply_gradients(zip(grads, model.trainable_variables))


class Linear40391(keras.Model):
    """y = x w + b with the variables made by hand."""

    def __init__(self):
        super().__init__()
        self.w = self.add_weight(shape=(3, 1), initializer="ones", name="w")
        self.b = self.add_weight(shape=(), initializer="zeros", name="b")

    def call(self, x):
        return tf.matmul(x, self.w) + self.b


def build_40391():
    model = Linear40391()
    model.compile(keras.optimizers.SGD(0.05), loss="mse")
    model(tf.zeros((1, 3)))
    return model


def loop_40391(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(x) - y) ** 2)
    grads = tape.gradient(loss, [model.w, model.b])
    model.optimizer.apply_gradients(zip(grads, [model.w, model.b]))
    return {"loss": float(loss)}


def build_46782():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05), loss="mean_squared_error")
    return model


def train_46782(model, x, y, epochs):
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    loss_fn = lambda true, pred: tf.reduce_mean(tf.math.squared_difference(pred, true))  # noqa: E731
    for _ in range(epochs):
        for xs, ys in dataset:
            with tf.GradientTape() as tape:
                loss = loss_fn(ys, model(xs, training=True))
            grads = tape.gradient(loss, model.trainable_weights)
            model.optimizer.apply_gradients(zip(grads, model.trainable_weights))


def build_56969():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(12), layers.LeakyReLU()])
    model.add(layers.Dense(1))
    model.compile(keras.optimizers.Adam(0.001), loss="mse")
    return model


def data_56969():
    x = abs(regression(40, 2)[0])
    inside = ((x - 0.5) ** 2).sum(axis=1) <= 0.4
    return x, inside.astype("float32")  # A sum over axis 1: (40,)


@tf.function
def gradient_56969(model, x, u_0):
    with tf.GradientTape(persistent=True) as tape:
        u = model(x)
        loss = tf.reduce_mean(tf.square(u - u_0))
    g = tape.gradient(loss, model.trainable_variables)
    del tape
    return loss, g


def loop_56969(model, x, y, sample_weight):
    loss, grad = gradient_56969(model, x, y)
    model.optimizer.apply_gradients(zip(grad, model.trainable_variables))
    return {"loss": loss}


class Manual16836(keras.Model):
    """The guide's overridden step, with the mean squared error by hand."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = tf.reduce_mean(tf.math.squared_difference(y_pred, y))
        trainable_vars = self.trainable_variables
        gradients = tape.gradient(loss, trainable_vars)
        self.optimizer.apply_gradients(zip(gradients, trainable_vars))
        self.mse_tracker.update_state(loss)
        return {"loss": self.mse_tracker.result()}

    @property
    def metrics(self):
        return [self.mse_tracker]


def build_16836():
    inputs = keras.Input((5,))
    outputs = layers.Dense(1)(layers.Dense(10, "relu")(inputs))
    model = Manual16836(inputs, outputs)
    model.mse_tracker = keras.metrics.Mean(name="loss")
    model.compile(keras.optimizers.Adam(0.01), loss="mean_squared_error")
    return model


def step(model, x, y, loss_fn, **call):
    """The step of everybody: a tape, the loss, the gradient, the update."""
    with tf.GradientTape() as tape:
        loss = loss_fn(y, model(x, **call))
    grads = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return loss


def loop_37581(model, x, y, sample_weight):
    n = len(x)
    inputs = tf.data.Dataset.from_tensor_slices(x).shuffle(n, seed=1)
    targets = tf.data.Dataset.from_tensor_slices(y).shuffle(n, seed=2)
    for xs, ys in tf.data.Dataset.zip((inputs, targets)).batch(n):
        loss = step(model, xs, ys, keras.losses.MeanSquaredError(), training=True)
    return {"loss": float(loss)}


def train_37581(model, x, y, epochs):
    inputs = tf.data.Dataset.from_tensor_slices(x).shuffle(64, seed=3).batch(8)
    targets = tf.data.Dataset.from_tensor_slices(y).shuffle(64, seed=4).batch(8)
    for _ in range(epochs):
        for xs, ys in tf.data.Dataset.zip((inputs, targets)):
            step(model, xs, ys, keras.losses.MeanSquaredError(), training=True)


def build_15306(activation="softmax"):
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, activation="relu")])
    model.add(layers.Flatten())
    model.add(layers.Dense(4, activation=activation))
    from_logits = activation is None
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    model.compile(keras.optimizers.SGD(0.05), loss=loss, metrics=["accuracy"])
    return model


def loop_15306(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        probs = model(x, training=True)
        one_hot = tf.one_hot(y, 4)  # (16, 1, 4) against (16, 4)
        loss = -tf.reduce_mean(tf.reduce_sum(one_hot * tf.math.log(probs), axis=-1))
    grads = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return {"loss": loss}


# --- D03, D04, D05, D51: the losses of the model ---------------------------------------------


def build_yolov4():
    l2 = keras.regularizers.L2(0.01)
    model = keras.Sequential([keras.Input((8, 8, 3))])
    model.add(layers.Conv2D(4, 3, activation="relu", kernel_regularizer=l2))
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(4, kernel_regularizer=l2))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss=loss)
    own["yolov4"] = keras.optimizers.Adam(0.01), loss
    return model


def loop_yolov4(model, x, y, sample_weight):
    optimizer, loss_object = own["yolov4"]
    with tf.GradientTape() as tape:
        pred_result = model(x, training=True)
        total_loss = loss_object(y, pred_result)
    gradients = tape.gradient(total_loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables))


def build_57392(l2=0.005):
    model = keras.Sequential([keras.Input((8,)), layers.Embedding(20, 6, mask_zero=True)])
    regularizer = keras.regularizers.L2(l2) if l2 else None
    model.add(layers.LSTM(6, return_sequences=True, kernel_regularizer=regularizer))
    model.add(layers.Dense(5))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss=loss)
    return model


def loop_57392(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        logits = model(x, training=True)
        loss = model.loss(y, logits)
    grads = tape.gradient(loss, model.trainable_weights)
    model.optimizer.apply_gradients(zip(grads, model.trainable_weights))
    return {"loss": loss}


def loop_32127_twice(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        y_pred = model(x, training=True)
        loss = model.compute_loss(x, y, y_pred)
        loss += tf.add_n(model.losses)  # compute_loss has them already
    grads = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return {"loss": loss}


class Divergence(layers.Layer):
    """The code of an autoencoder, with its divergence as a loss of the layer."""

    def __init__(self):
        super().__init__()
        self.mean = layers.Dense(3)
        self.log_var = layers.Dense(3)

    def call(self, x):
        mean, log_var = self.mean(x), self.log_var(x)
        self.add_loss(-0.5 * tf.reduce_mean(log_var - mean**2 - tf.exp(log_var) + 1.0))
        return mean


def build_32127():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "tanh"), Divergence()])
    model.add(layers.Dense(6))
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    return model


def data_32127():
    x, _ = labels(32)
    return x, x


def loop_32127(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        reconstructed = model(x, training=True)
        loss = keras.losses.MeanSquaredError()(x, reconstructed)
    grads = tape.gradient(loss, model.trainable_weights)
    pairs = [(g, v) for g, v in zip(grads, model.trainable_weights) if g is not None]
    model.optimizer.apply_gradients(pairs)
    return {"loss": loss}


def build_33556():
    model = keras.Sequential([keras.Input((6,))])
    model.add(layers.Dense(10, "relu", activity_regularizer=keras.regularizers.L1(0.05)))
    model.add(layers.Dense(1, "sigmoid"))
    model.compile(keras.optimizers.SGD(0.1), loss="binary_crossentropy")
    return model


def loop_33556(model, x, y, sample_weight):
    loss = step(model, x, y, keras.losses.BinaryCrossentropy(), training=True)
    return {"loss": loss}


def loop_32127_log(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        mse = keras.losses.MeanSquaredError()(y, model(x, training=True))
        total = mse + sum(model.losses)
    grads = tape.gradient(total, model.trainable_weights)
    model.optimizer.apply_gradients(zip(grads, model.trainable_weights))
    return {"loss": mse}


# --- D06 to D08: how the model is called -----------------------------------------------------


def build_31184(dropout=0.0):
    base = keras.Sequential([layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()])
    model = keras.Sequential([keras.Input((8, 8, 3)), base, layers.GlobalAveragePooling2D()])
    if dropout:
        model.add(layers.Dropout(dropout))
    model.add(layers.Dense(4, "softmax"))
    optimizer = keras.optimizers.SGD(0.05)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@tf.function
def loop_31184(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        predictions = model(x)
        loss = keras.losses.SparseCategoricalCrossentropy()(y, predictions)
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return {"loss": loss}


def loop_michalfaber(model, x, y, sample_weight):
    loss_fn = keras.losses.SparseCategoricalCrossentropy()
    step(model, x, y, loss_fn, training=False)


def loop_33771(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        predictions = model(x, training=True)
        loss = keras.losses.SparseCategoricalCrossentropy()(y, model(x, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    right = tf.cast(tf.argmax(predictions, axis=1), y.dtype) == y
    return {"loss": loss, "accuracy": tf.reduce_mean(tf.cast(right, tf.float32))}


def build_35533(rate=0.4):
    """TextCNN: an embedding, two widths of convolution, dropout, logits."""
    inputs = keras.Input((8,))
    embedded = layers.Embedding(20, 6)(inputs)
    pooled = [layers.GlobalMaxPooling1D()(layers.Conv1D(5, k)(embedded)) for k in (2, 3)]
    hidden = layers.Dropout(rate)(layers.Concatenate()(pooled))
    model = keras.Model(inputs, layers.Dense(5, name="logits")(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss=loss)
    return model


def data_35533():
    x, y = tokens(24)
    return x, y[:, 0]


def loop_35533_dropout(model, x, y, sample_weight):
    loss_object = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {"loss": step(model, x, y, loss_object)}


# --- D11, D13, D14, D61: what the loss is divided by -----------------------------------------


def smooth_l1_15546(y_true, y_pred):
    """A localisation loss, one value for each example."""
    error = tf.abs(y_true - y_pred)
    return tf.reduce_mean(tf.where(error < 1.0, 0.5 * error**2, error - 0.5), axis=-1)


def build_15546():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(12, "relu"), layers.Dense(6)])
    model.compile(keras.optimizers.SGD(0.01), loss=smooth_l1_15546)
    return model


@tf.function
def loop_15546(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        loc = model(x, training=True)
        loss = smooth_l1_15546(y, loc)
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))


def loop_33988(model, x, y, sample_weight):
    def custom_loss(y_true, y_pred):
        return tf.reduce_sum(tf.square(y_true - y_pred))

    return {"loss": step(model, x, y, custom_loss, training=True)}


def build_16529():
    model = keras.Sequential([keras.Input((4,))])
    model.add(layers.Dense(8, "tanh", kernel_regularizer="l2"))
    model.add(layers.Dense(1))
    model.compile(keras.optimizers.SGD(0.01), loss="mse")
    return model


def loop_16529(model, x, y, sample_weight):
    loss_fn = keras.losses.MeanSquaredError(reduction="none")
    with tf.GradientTape() as tape:
        loss = loss_fn(y, model(x, training=True)) + sum(model.losses)  # A vector and a scalar
    grads = tape.gradient(loss, model.trainable_weights)
    model.optimizer.apply_gradients(zip(grads, model.trainable_weights))


class Vector17260(keras.Model):
    """The guide's step with the functional loss, which is a vector."""

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = keras.losses.mean_squared_error(y, y_pred)
        trainable_vars = self.trainable_variables
        gradients = tape.gradient(loss, trainable_vars)
        self.optimizer.apply_gradients(zip(gradients, trainable_vars))
        self.loss_tracker.update_state(loss)
        return {"loss": self.loss_tracker.result()}

    @property
    def metrics(self):
        return [self.loss_tracker]


def build_17260_vector():
    inputs = keras.Input((4,))
    model = Vector17260(inputs, layers.Dense(1)(layers.Dense(8, "relu")(inputs)))
    model.loss_tracker = keras.metrics.Mean(name="loss")
    model.compile(keras.optimizers.SGD(0.001), loss="mse")
    return model


def build_19308():
    return build_regressor(keras.optimizers.SGD(0.01))


def loop_19308_sum(model, x, y, sample_weight):
    variables = model.trainable_variables
    accumulated = [tf.zeros_like(v) for v in variables]
    for i in range(0, len(x), 8):
        with tf.GradientTape() as tape:
            loss = keras.losses.MeanSquaredError()(y[i : i + 8], model(x[i : i + 8], training=True))
        accumulated = [a + g for a, g in zip(accumulated, tape.gradient(loss, variables))]
    model.optimizer.apply_gradients(zip(accumulated, variables))


def loop_19308_uneven(model, x, y, sample_weight):
    variables = model.trainable_variables
    chunks = list(tf.data.Dataset.from_tensor_slices((x, y)).batch(16))  # 16, 16 and 4 rows
    total = [tf.zeros_like(v) for v in variables]
    for xs, ys in chunks:
        with tf.GradientTape() as tape:
            loss = keras.losses.MeanSquaredError()(ys, model(xs, training=True))
            loss = loss / len(chunks)
        total = [t + g for t, g in zip(total, tape.gradient(loss, variables))]
    model.optimizer.apply_gradients(zip(total, variables))


def build_tagger():
    """A tagger without padding: a loss for each token."""
    model = keras.Sequential([keras.Input((8,)), layers.Embedding(20, 6)])
    model.add(layers.GRU(6, return_sequences=True))
    model.add(layers.Dense(5))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss=loss)
    return model


def loop_tokens_summed(model, x, y, sample_weight):
    def loss_fn(real, logits):
        loss_ = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=real, logits=logits)
        return tf.reduce_mean(tf.reduce_sum(loss_, axis=1))

    return {"loss": step(model, x, y, loss_fn, training=True)}


# --- D15 to D19: weights and masks -----------------------------------------------------------


def build_classifier(classes=4):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(10, "tanh"), layers.Dense(classes)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss=loss)
    return model


def loop_43902_weights(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        loss = model.compute_loss(y=y, y_pred=model(x, training=True))
    grads = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(grads, model.trainable_variables))


class Unpacked43902(keras.Model):
    """An overridden step that throws the third of the data away."""

    def train_step(self, data):
        x, y = data[0], data[1]
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=y_pred)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {m.name: m.result() for m in self.metrics}


def build_43902_step():
    inputs = keras.Input((6,))
    outputs = layers.Dense(1, "sigmoid")(layers.Dense(8, "relu")(inputs))
    model = Unpacked43902(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.1), loss="binary_crossentropy")
    return model


@tf.function
def loop_15119(model, x, y, sample_weight):
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {"loss": step(model, x, y, loss_fn, training=True)}


def loop_taumltools(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        losses = keras.losses.mean_squared_error(y, model(x, training=True))
        loss = tf.reduce_sum(losses * sample_weight) / tf.reduce_sum(sample_weight)
    grads = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return {"loss": loss}


def loop_19740(model, x, y, sample_weight):
    weights = sample_weight / tf.reduce_mean(sample_weight)
    with tf.GradientTape() as tape:
        loss = model.loss(y, model(x, training=True), sample_weight=weights)
    grads = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(grads, model.trainable_variables))


def loop_57392_mean(model, x, y, sample_weight):
    def loss_function(real, pred):
        mask = tf.cast(tf.math.not_equal(real, 0), pred.dtype)
        loss_ = tf.nn.sparse_softmax_cross_entropy_with_logits(real, pred)
        return tf.reduce_mean(loss_ * mask)

    return {"loss": step(model, x, y, loss_function, training=True)}


@tf.function
def loop_15323(model, x, y, sample_weight):
    def loss_function(real, pred):
        scce = keras.losses.sparse_categorical_crossentropy(real, pred, from_logits=True)
        return tf.reduce_mean(scce)

    return {"loss": step(model, x, y, loss_function, training=True)}


# --- D21 to D23: logits ----------------------------------------------------------------------


def loop_35533_logits(model, x, y, sample_weight):
    loss_object = keras.losses.SparseCategoricalCrossentropy()
    return {"loss": step(model, x, y, loss_object, training=True)}


def build_35585():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(1)])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss=loss)
    return model


@tf.function
def loop_35585(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        predictions = model(x, training=True)
        loss = tf.reduce_mean(keras.losses.binary_crossentropy(y, predictions))
    gradients = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return {"loss": loss}


def loop_16906(model, x, y, sample_weight):
    def loss_fn(target, probs):
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=target, logits=probs)
        return tf.reduce_mean(loss)

    return {"loss": step(model, x, y, loss_fn, training=True)}


def build_35585_sigmoid():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu")])
    model.add(layers.Dense(1, "sigmoid"))
    model.compile(keras.optimizers.Adam(0.01), loss="binary_crossentropy")
    return model


def loop_35585_sigmoid(model, x, y, sample_weight):
    def loss_fn(target, output):
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(target, output))

    step(model, x, y, loss_fn, training=True)


def build_32869():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(16, "relu")])
    model.add(layers.Dense(4, activation="softmax"))
    model.compile(keras.optimizers.SGD(0.001), loss="sparse_categorical_crossentropy")
    return model


def loop_32869(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        probabilities = tf.identity(model(x, training=True))
        loss = keras.losses.SparseCategoricalCrossentropy()(y, probabilities)
    grads = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return {"loss": loss}


# --- D57, D38, D39, D41, D47: heads, variables, inputs ---------------------------------------


def build_17260():
    inputs = keras.Input((6,))
    hidden = layers.Dense(10, "relu")(inputs)
    outputs = [layers.Dense(1, name="age")(hidden), layers.Dense(3, name="pose")(hidden)]
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.01), loss=["mse", "mae"], loss_weights=[0.2, 1.5])
    return model


def data_17260():
    x, y = regression(24, 6, column=True)
    return x, [y, x[:, :3] * 2.0]


def loop_17260(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        age, pose = model(x, training=True)
        mse = keras.losses.MeanSquaredError()(y[0], age)
        mae = keras.losses.MeanAbsoluteError()(y[1], pose)
        loss = mse + mae
    grads = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return {"loss": loss}


class Sub33205(keras.Model):
    """A subclassed model: features and a head."""

    def __init__(self):
        super().__init__()
        self.features = keras.Sequential([layers.Dense(8, "tanh"), layers.Dense(6, "tanh")])
        self.head = layers.Dense(4)

    def call(self, x):
        return self.head(self.features(x))


def build_33205():
    model = Sub33205()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss=loss)
    model(tf.zeros((1, 6)))
    return model


def loop_33205(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        loss = model.loss(y, model(x, training=True))
    weights = model.head.trainable_variables  # and of the features nothing
    model.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
    return {"loss": loss}


def loop_20630(model, x, y, sample_weight):
    with tf.GradientTape() as tape:
        features = model.features(x).numpy()
        loss = model.loss(y, model.head(features))
    grads = tape.gradient(loss, model.trainable_variables)
    pairs = [(g, v) for g, v in zip(grads, model.trainable_variables) if g is not None]
    model.optimizer.apply_gradients(pairs)
    return {"loss": loss}


def build_43902_towers():
    """Two encoders of the same shape, as for two kinds of picture of one patient."""
    first, second = keras.Input((5,)), keras.Input((5,))
    encoders = [layers.Dense(6, "tanh", name=name) for name in ("flair", "t1")]
    merged = layers.Concatenate()([encoders[0](first), encoders[1](second)])
    model = keras.Model([first, second], layers.Dense(1, name="grade")(merged))
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    return model


def data_43902_towers():
    x, y = regression(24, 10, column=True)
    return [x[:, :5], x[:, 5:]], y


def loop_43902_towers(model, x, y, sample_weight):
    parts = [model.get_layer(name).trainable_variables for name in ("t1", "flair", "grade")]
    with tf.GradientTape() as tape:
        loss = keras.losses.MeanSquaredError()(y, model(x, training=True))
    grads = tape.gradient(loss, sum(parts, []))
    model.optimizer.apply_gradients(zip(grads, model.trainable_variables))
    return {"loss": loss}


def loop_15306_scaled(model, x, y, sample_weight):
    loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return {"loss": step(model, x / 255.0, y, loss_fn, training=True)}


def data_15306_bytes():
    x, y = images(16)
    return (x - x.min()) * 25.0, y


def fault(name, thread, build, data, loop, *expected, **more):
    """A step that is wrong for the first cause given, or for any of its other names."""
    return case(name, thread, build, data, loop, expected=frozenset(expected), **more)


def whole(name, thread, build, data, train, *expected, **options):
    """A whole training that is wrong."""
    expected = frozenset(expected)
    return case(name, thread, build, data, train=train, expected=expected, options=options)


column = functools.partial(regression, column=True)

FAULTY_LOSS: tuple[ThreadCase, ...] = (
    # y (n,) minus prediction (n, 1) is (n, n); `fit` squeezes.
    fault("tf28901_y_flat", "tensorflow#28901", build_28901, regression, loop_28901, "D01"),
    # The same with the absolute error.
    fault("tf28394_mae_flat", "tensorflow#28394", build_28394, data_28394, loop_28394, "D01"),
    # The scalar b has the right gradient, the vector w has that of the mean target.
    fault(
        "tf40391_scalar_right_vector_wrong",
        "tensorflow#40391",
        build_40391,
        lambda: regression(20, 3),
        loop_40391,
        "D01",
    ),
    # The bias goes to mean(y): a whole training.
    whole(
        "tf46782_bias_learns_mean",
        "tensorflow#46782",
        build_46782,
        regression,
        train_46782,
        "D01",
        epochs=2,
        batch_size=8,
        shuffle=False,
    ),
    # Targets of a sum over axis 1 are (n,).
    fault("tf56969_target_of_sum", "tensorflow#56969", build_56969, data_56969, loop_56969, "D01"),
    # An overridden train_step with the error by hand.
    fault(
        "keras16836_manual_mse",
        "keras#16836",
        build_16836,
        lambda: regression(40, 5),
        None,
        "D01",
    ),
    # Each of x and y has a shuffle of its own.
    fault("tf37581_zip_of_shuffles", "tensorflow#37581", build_19308, column, loop_37581, "D02"),
    whole(
        "tf37581_zip_of_shuffles_training",
        "tensorflow#37581",
        build_19308,
        column,
        train_37581,
        "D02",
        epochs=2,
        batch_size=8,
        shuffle=True,
    ),
    # Integer labels (n, 1) made one-hot: (n, 1, C) against (n, C), again an n by n loss.
    fault(
        "keras15306_one_hot_of_column",
        "keras#15306",
        build_15306,
        lambda: images(column=True),
        loop_15306,
        "D64",
        "D01",
    ),
    # Kernel regularisers, and model.losses nowhere.
    fault("yolov4_369_no_l2", "yolov4-tflite#369", build_yolov4, images, loop_yolov4, "D03"),
    # The loss object sees the mask; what lacks is the L2 of the LSTM.
    fault("tf57392_lstm_no_l2", "tensorflow#57392", build_57392, tokens, loop_57392, "D03"),
    # compute_loss includes model.losses, and they are added again.
    fault("tf32127_l2_twice", "tensorflow#32127", build_16529, column, loop_32127_twice, "D04"),
    # add_loss of a layer left out.
    fault("tf32127_no_add_loss", "tensorflow#32127", build_32127, data_32127, loop_32127, "D05"),
    # An activity regulariser left out.
    fault("tf33556_no_activity", "tensorflow#33556", build_33556, binary, loop_33556, "D05"),
    # The gradient is right, the loss that is returned lacks model.losses.
    fault("tf32127_log", "tensorflow#32127", build_32127, data_32127, loop_32127_log, "D51"),
    # No training=True, with BatchNormalization.
    fault("tf31184_no_training", "tensorflow#31184", build_31184, images, loop_31184, "D08"),
    fault(
        "michalfaber13_training_false",
        "michalfaber#13",
        build_31184,
        images,
        loop_michalfaber,
        "D08",
    ),
    # BatchNormalization and Dropout both miss the flag: one fault, two names.
    fault(
        "tf31184_no_training_dropout",
        "tensorflow#31184",
        functools.partial(build_31184, 0.5),
        images,
        loop_michalfaber,
        "D07",
        "D08",
    ),
    # Called twice in the tape: the moving statistics move twice.
    fault(
        "tf33771_called_twice", "tensorflow#33771", build_31184, images, loop_33771, "D06", "D09"
    ),
    # No training=True, with Dropout only.
    fault(
        "tf35533_no_dropout",
        "tensorflow#35533",
        build_35533,
        data_35533,
        loop_35533_dropout,
        "D07",
    ),
    # The loss stays a vector, of which a tape takes the sum.
    fault("keras15546_vector_loss", "keras#15546", build_15546, data_32127, loop_15546, "D11"),
    fault("tf33988_reduce_sum", "tensorflow#33988", build_19308, column, loop_33988, "D11"),
    fault("keras16529_vector_and_l2", "keras#16529", build_16529, column, loop_16529, "D11"),
    fault("keras17260_functional", "keras#17260", build_17260_vector, column, None, "D11"),
    # The sum of 4 micro-batches' mean gradients.
    fault("keras19308_sum_of_four", "keras#19308", build_19308, column, loop_19308_sum, "D13"),
    # 16, 16 and 4 rows, each a third.
    fault(
        "keras19308_uneven",
        "keras#19308",
        build_19308,
        lambda: column(36),
        loop_19308_uneven,
        "D14",
    ),
    # Summed over the 8 tokens, averaged over the sequences.
    fault("tokens_summed", "tensorflow#57392", build_tagger, tokens, loop_tokens_summed, "D61"),
    # sample_weight is not used.
    fault(
        "tf43902_no_weights",
        "tensorflow#43902",
        build_classifier,
        lambda: weighted(labels()),
        loop_43902_weights,
        "D15",
    ),
    fault(
        "tf43902_data_unpacked",
        "tensorflow#43902",
        build_43902_step,
        lambda: weighted(binary()),
        None,
        "D15",
    ),
    # class_weight arrives as sample_weight, and is not used.
    fault(
        "keras15119_no_class_weight",
        "keras#15119",
        build_classifier,
        labels,
        loop_15119,
        "D17",
        class_weight={0: 1.0, 1: 5.0, 2: 0.5, 3: 2.0},
    ),
    # Divided by sum(w); Keras divides by n.
    fault(
        "taumltools90_by_sum",
        "TauMLTools#90",
        build_19308,
        lambda: weighted(column()),
        loop_taumltools,
        "D16",
    ),
    fault(
        "keras19740_normalised_weights",
        "keras#19740",
        build_classifier,
        lambda: weighted(labels()),
        loop_19740,
        "D16",
    ),
    # Masked terms are zero, but the mean is over all; Keras divides by the valid ones.
    fault(
        "tf57392_mean_over_all",
        "tensorflow#57392",
        functools.partial(build_57392, None),
        tokens,
        loop_57392_mean,
        "D18",
    ),
    # The functional loss knows no mask: padding counts.
    fault(
        "keras15323_padding_counts",
        "keras#15323",
        functools.partial(build_57392, None),
        tokens,
        loop_15323,
        "D19",
    ),
    # Logits where probabilities are expected.
    fault("tf35533_logits", "tensorflow#35533", build_classifier, labels, loop_35533_logits, "D21"),
    fault("tf35585_binary_logits", "tensorflow#35585", build_35585, binary, loop_35585, "D21"),
    # Probabilities where logits are expected: softmax or sigmoid twice.
    fault("keras16906_softmax_twice", "keras#16906", build_15306, images, loop_16906, "D22"),
    fault(
        "tf35585_sigmoid_twice",
        "tensorflow#35585",
        build_35585_sigmoid,
        binary,
        loop_35585_sigmoid,
        "D22",
    ),
    # tf.identity loses the logits that Keras would take; sure predictions are clipped.
    fault(
        "tf32869_logits_lost",
        "tensorflow#32869",
        build_32869,
        lambda: labels(scale=25.0),
        loop_32869,
        "D23",
    ),
    # loss_weights belong to compile, and the loop adds the plain losses.
    fault("keras17260_loss_weights", "keras#17260", build_17260, data_17260, loop_17260, "D57"),
    # Only the head's variables are given a gradient.
    fault("tf33205_only_head", "tensorflow#33205", build_33205, labels, loop_33205, "D38"),
    # .numpy() cuts the tape below the head.
    fault("tf20630_numpy", "tensorflow#20630", build_33205, labels, loop_20630, "D38", "D39"),
    # Gradients of (t1, flair) are given to (flair, t1), of the same shapes.
    fault(
        "tf43902_towers_swapped",
        "tensorflow#43902",
        build_43902_towers,
        data_43902_towers,
        loop_43902_towers,
        "D41",
    ),
    # `fit` gets bytes, the loop divides them by 255.
    fault(
        "keras15306_scaled_in_loop",
        "keras#15306",
        functools.partial(build_15306, None),
        data_15306_bytes,
        loop_15306_scaled,
        "D47",
    ),
)
