"""Every tolerance of the parity suite, with what was measured and why it is not smaller.

A tolerance bounds the gap between any two of PyTorch, TensorFlow and the float64 oracle; the measures are those of
quantities.py. Measured: the largest of the three pairs, on two CPU cores with AVX-512, PyTorch 2.13.0, TensorFlow
2.21.0, NumPy 2.4.6. Other machines sum in other orders, so there is room: with one thread and no instructions beyond
SSE4.1 (ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 TF_ENABLE_ONEDNN_OPTS=0 OMP_NUM_THREADS=1), the largest gap
was 0.39 of its bound, apart from numbers that are rounded once, whose bound is two halves of a float32 rounding.
"""

from dataclasses import dataclass

# A GPU sums in other orders still, and its libraries choose algorithms by size. Chosen, not measured.
GPU_FACTOR = 10.0


@dataclass(frozen=True)
class Tolerance:
    """The largest gap that passes, in each precision."""

    fp64: float
    fp32: float

    def on(self, device: str, precision: str) -> float:
        """The bound on "cpu" or "gpu" in "fp64" or "fp32"."""
        bound = self.fp64 if precision == "fp64" else self.fp32
        return bound * GPU_FACTOR if device == "gpu" else bound


# Elementwise, on the host in float64 whatever the precision. 5.5e-14: 1 - alphas_cumprod near t = 0.
LEVELS = Tolerance(fp64=1e-12, fp32=1e-12)
# Elementwise. 3.2e-13: 1 - alphas_cumprod loses digits near t = 0, where the oracle takes another route. In float32
# 5.9e-8: the float64 numbers rounded once.
SCHEDULE = Tolerance(fp64=1e-12, fp32=1.2e-7)
# Elementwise. 2.9e-10: the alphas_cumprod at the end of a cosine, 1e-9, is what is left when a beta near 1 is taken
# from 1; betas themselves 7.3e-12. In float32 5.9e-8, rounded once.
SCHEDULES = Tolerance(fp64=1e-9, fp32=1.2e-7)
# 1.5e-11 from the schedule, of a cosine near t = 0; 2.5e-7, some roundings.
CONVERSIONS = Tolerance(fp64=1e-10, fp32=2e-6)
# 7.1e-12 and 2.1e-6 of the hybrid loss, whose bound has small differences in it.
LOSSES = Tolerance(fp64=5e-11, fp32=2e-5)
# 1.7e-11 and 7.9e-6; the oracle's are differences of losses.
SLOPES = Tolerance(fp64=2e-10, fp32=5e-5)
# Seven steps. 7.5e-14 and 7.5e-6.
TRAJECTORIES = Tolerance(fp64=1e-12, fp32=5e-5)
# Elementwise, on the host in float64 whatever the precision. 2.1e-15 of ve, whose ratio of 5000 is raised to a power.
RATES = Tolerance(fp64=2e-14, fp32=2e-14)
# Of the largest, or elementwise; on the host in float64. 7.8e-16: the oracle bisects in NumPy's longest float.
LOG_SNR = Tolerance(fp64=1e-14, fp32=1e-14)
# Of the largest, on the host in float64. 8.9e-16. The first times of ve are 1e-5, and what is left of a difference.
GRIDS_OF_TIMES = Tolerance(fp64=1e-14, fp32=1e-14)
# Elementwise, on the host in float64. 9.3e-16: a quotient and a product.
CHURN = Tolerance(fp64=1e-14, fp32=1e-14)
# Seven steps of the solvers in t. 2.2e-14, of heun on vp, and 1.9e-6, of pc on edm, whose norms are sums.
SOLVERS = Tolerance(fp64=2e-13, fp32=2e-5)
# 256 steps of rk4 against the closed form. 1.8e-10 in float64, of edm, is the error of the method, which a test of its
# order bounds; 6.9e-7.
EXACT_PATH = Tolerance(fp64=1e-9, fp32=5e-6)
# Seven steps. 1.1e-13, of plms on sub_vp, and 5.4e-5, of plms on vp, which divides by alpha.
TRAJECTORIES_OF_PROCESSES = Tolerance(fp64=1e-12, fp32=2e-4)
# 5.3e-12 and 2.5e-5 of plms and heun, which divide by sqrt(alphas_cumprod).
TRAJECTORIES_OF_EPS = Tolerance(fp64=5e-11, fp32=2e-4)
# 2.3e-13, inherited from the schedule; 9.6e-8, a rounding or two of each operation.
ARITHMETIC = Tolerance(fp64=1e-12, fp32=1e-6)
# 1.1e-13: angles up to 999, with 16 digits of their own, into sin and cos; 3.0e-8, float64 rounded once.
EMBEDDING = Tolerance(fp64=1e-12, fp32=1.2e-7)
# Output and gradients of one layer. 2.2e-15 and 7.9e-7: sums of some hundred terms.
LAYERS = Tolerance(fp64=1e-13, fp32=5e-6)
# Output of each layer inside a whole network. 5.7e-14 and 3.4e-6: rounding handed on from layer to layer.
FORWARD = Tolerance(fp64=1e-12, fp32=1e-5)
# 3.6e-16 and 9.8e-8: a mean over thousands of errors that cancel.
LOSS = Tolerance(fp64=1e-14, fp32=1e-6)
# 1.0e-13 and 3.2e-5 (in `small`; 1.4e-5 elsewhere): the way there and back, and gradients of biases are sums over all
# pixels. That of the last layer's bias in `small`, what is left of terms that cancel, is a hundredth of the largest.
GRADIENTS = Tolerance(fp64=1e-12, fp32=5e-5)
# 4.8e-15, in float64 whatever the precision: host arithmetic, to which the oracle goes another way.
LEARNING_RATE = Tolerance(fp64=1e-14, fp32=1e-14)
# 0 and 6.7e-8: one norm, one product.
CLIPPING = Tolerance(fp64=1e-14, fp32=1e-6)
# Absolute, on weights of order 1. 4.4e-16 and 4.2e-7: thirty roundings of the weights, of gradients down to 1e-9.
ADAM = Tolerance(fp64=1e-14, fp32=2e-6)
# 1.1e-16 and 5.0e-8, on numbers of order 1.
EMA = Tolerance(fp64=1e-14, fp32=1e-6)
# 0 and 5.9e-8: the images are equal to the last bit, the noise is float64 rounded once.
BATCHES = Tolerance(fp64=0.0, fp32=1.2e-7)
# 0: labels; pixels of numbers that are not just between two grey levels.
EXACT = Tolerance(fp64=0.0, fp32=0.0)
# 0 and 6.0e-8: float64, rounded once.
INITIAL_VALUES = Tolerance(fp64=0.0, fp32=1.2e-7)
# A hundred steps. 2.6e-14 and 6.0e-6: losses of weights that have moved apart.
HISTORY = Tolerance(fp64=5e-13, fp32=5e-5)
# 2.4e-13 and 5.2e-5: of all that is logged, the norm feels most how far the weights have moved apart.
GRADIENT_NORMS = Tolerance(fp64=5e-12, fp32=5e-4)
# Absolute, on weights of order 1. 1.4e-14 and 3.0e-6: training itself amplifies rounding; docs/divergence.md.
WEIGHTS = Tolerance(fp64=5e-13, fp32=5e-5)
# 2.2e-12 and 4.6e-4: means of gradients, which are differences of large terms, at weights that have moved apart.
MOMENTS = Tolerance(fp64=1e-11, fp32=3e-3)
# 4.4e-13 and 6.4e-5: a thousand steps of a trained network, each handing its rounding on to the next.
CHAIN = Tolerance(fp64=5e-12, fp32=3e-4)
# 4.3e-13 and 1.5e-4 (plms): solvers that work on eps divide its rounding by sqrt(alphas_cumprod), 0.006 at first.
FEW_STEPS = Tolerance(fp64=5e-12, fp32=1e-3)
# The share of pixels one grey level apart: two of 2 * 28 * 28, five of 13 * 28 * 28. 0; 1 and 2 pixels in float32,
# where the gaps of x_0, times 127.5 levels, add up to 0.6 pixels that are expected to cross an edge between two levels.
GRID_OF_2 = Tolerance(fp64=0.0, fp32=1.28e-3)
GRID_OF_13 = Tolerance(fp64=0.0, fp32=5e-4)
# Elementwise. 1.6e-15 and 1.8e-7: one formula of one constant, the last alphas_cumprod.
PRIOR = Tolerance(fp64=1e-13, fp32=1e-6)
# 3.8e-15 and 2.7e-6: a pixel on the edge of its bin moves by the rounding of x_0, which is 1e-5 of sigma.
DECODER = Tolerance(fp64=1e-13, fp32=2e-5)
# Elementwise. 3.7e-12 at t = 0, which inherits most from the schedule. 2.1e-4: in float32 the two means, of order 1,
# cancel to a thousandth; the commands therefore compute all but the network in float64.
BOUND_TERMS = Tolerance(fp64=2e-11, fp32=2e-3)
# Elementwise, in float64 but for the network. 2.6e-12 at t = 0; 8.2e-6, squares of errors of the network's noise that
# are a hundredth of it.
TRAINED_TERMS = Tolerance(fp64=2e-11, fp32=5e-5)
# 2.6e-12 and 1.6e-8: a sum of a thousand of these terms, whose roundings cancel; the decoder's term is half of it.
BITS_PER_DIM = Tolerance(fp64=2e-11, fp32=5e-7)
# Five steps of a random network, guided, and in colour. 4.5e-14 and 1.8e-5.
GUIDED_STEPS = Tolerance(fp64=5e-13, fp32=1e-4)
# 2.0e-13 and 1.2e-4: ten guided steps, there and back, without the clipping that takes rounding away.
GUIDED_INVERSION = Tolerance(fp64=2e-12, fp32=1e-3)
# Elementwise, as TRAINED_TERMS. 3.5e-13 at t = 0; 9.9e-7.
LABELLED_TERMS = Tolerance(fp64=5e-12, fp32=1e-5)
# Elementwise, as TRAINED_TERMS. 3.0e-12 at t = 0; 2.3e-7.
COLOUR_TERMS = Tolerance(fp64=2e-11, fp32=5e-6)
# Of the largest number of each image. 5.3e-16 and 2.2e-7: both ways are the same few operations in another order.
ONE_THING = Tolerance(fp64=1e-14, fp32=2e-6)
# Layers of the transformer U-Net, and their gradients. 3.6e-15 and 4.0e-6: with two tokens, the gradients of query and
# key are differences of nearly equal terms.
TRANSFORMER_LAYERS = Tolerance(fp64=3e-14, fp32=3e-5)
# Elementwise. 8.2e-15 and 1.3e-7: of whole times up to 39, the angles are some ten thousands.
TRANSFORMER_LOSSES = Tolerance(fp64=5e-14, fp32=1e-6)
# Absolute, in float64 whatever the precision. 1.1e-13: angles up to some thousands, into sin and cos.
FOURIER = Tolerance(fp64=1e-12, fp32=1e-12)
# Elementwise, on the host in float64 whatever the precision. 5.1e-12: the first time of ve, by a root of log-SNR.
ODE_LEVELS = Tolerance(fp64=5e-11, fp32=5e-11)
# Elementwise, in float64 whatever the precision. 2.8e-14: a grey level near 0 in [-1, 1] has lost two digits.
LIKELIHOOD_PARTS = Tolerance(fp64=3e-13, fp32=3e-13)
# In float64 but for the network. 5.2e-14 and 5.0e-6: products of a random network's Jacobian, whose terms cancel.
TRACES = Tolerance(fp64=5e-13, fp32=5e-5)
# Elementwise. 5.0e-15, but 4.7e-14 where the process ends in pure noise, and 1.3e-7: sums over three levels.
LIKELIHOOD = Tolerance(fp64=5e-13, fp32=2e-6)
# In continuous time. 3.3e-15 and 2.9e-7: a few operations.
CONTINUOUS_CONVERSIONS = Tolerance(fp64=2e-14, fp32=2e-6)
# Elementwise. 5.7e-15 of a logarithm near 0; 3.4e-7.
PRECONDITIONING = Tolerance(fp64=5e-14, fp32=2e-6)
# 1.1e-13 and 1.1e-4: the noise that is left of x_t where x_0 is predicted, at sigma = 0.002.
PRECONDITIONED = Tolerance(fp64=1e-12, fp32=1e-3)
# Elementwise, in float64 whatever the precision. 9.5e-16.
CONTINUOUS_TIMES = Tolerance(fp64=1e-14, fp32=1e-14)
# Elementwise. 3.9e-15 and 4.1e-7: powers of a quotient.
CONTINUOUS_WEIGHTS = Tolerance(fp64=5e-14, fp32=2e-6)
# Elementwise. 1.2e-14 and 1.8e-6, of edm.
CONTINUOUS_LOSSES = Tolerance(fp64=1e-13, fp32=1e-5)
# Elementwise. 3.1e-12 and 3.5e-7: of x_0 at the least noise of sub_vp, sigma = 1e-6, which EDM's weighting divides by.
ONE_LOSS = Tolerance(fp64=2e-11, fp32=1e-5)
# 6.9e-14 and 1.2e-5, of edm; the oracle's are differences.
CONTINUOUS_SLOPES = Tolerance(fp64=5e-13, fp32=1e-4)
# Five steps of a random network, guided. 9.1e-13 of sub_vp, whose last sigma is 1e-4 of its alpha; 3.6e-5.
CONTINUOUS_DRAWING = Tolerance(fp64=5e-12, fp32=3e-4)
# The same images, drawn in any process: 1.9e-14 and 1.5e-5.
DDPM_ELSEWHERE = Tolerance(fp64=1e-13, fp32=1e-4)
# 1.2e-12 of vp drawn in sub_vp, as above; 3.3e-5.
DRAWN_ELSEWHERE = Tolerance(fp64=5e-12, fp32=3e-4)
# Elementwise. 8.4e-15 and 5.8e-7: six levels, and a network that was trained.
TRAINED_LIKELIHOOD = Tolerance(fp64=1e-13, fp32=5e-6)
# Layers of the residual U-Net, and their gradients. 3.7e-15 and 4.4e-6, of BatchNorm over two pixels, which become 1
# and -1 whatever they were: their gradients are what is left of a difference.
RESIDUAL_LAYERS = Tolerance(fp64=3e-14, fp32=3e-5)
# The gradients of the preset in training, which has ReLU. 2.5e-14 and, where the two frameworks agree to 4.8e-6 with
# each other, 2.3e-2: in float32 one of a million numbers lies on the other side of 0, where the slope of ReLU jumps.
RELU_GRADIENTS = Tolerance(fp64=1e-12, fp32=1e-1)
# BatchNorm of one pixel. 2.9e-14 and 5.1e-5: PyTorch multiplies the pixel and the mean by 1 / sqrt(epsilon) = 316 each,
# before it takes one from the other.
ONE_PIXEL = Tolerance(fp64=3e-13, fp32=5e-4)
# Elementwise. 2.4e-16 and 9.0e-7: a mean near 0 has lost a digit.
RUNNING_MOMENTS = Tolerance(fp64=2e-15, fp32=1e-5)
# Elementwise, of four steps from random weights: the losses and the norm of the gradient. 6.8e-16 and 3.3e-7.
RESIDUAL_LOSSES = Tolerance(fp64=5e-14, fp32=5e-6)
# The same of a hundred steps. 1.5e-15 and 4.1e-7.
RESIDUAL_HISTORY = Tolerance(fp64=5e-14, fp32=1e-5)
# Absolute, of four steps and of a hundred, on weights of order 1. 9.4e-16 and 9.9e-7.
RESIDUAL_STATES = Tolerance(fp64=5e-14, fp32=1e-5)
# 2.5e-14, after four steps from random weights, and 2.9e-6.
RESIDUAL_MOMENTS = Tolerance(fp64=5e-13, fp32=1e-4)
# 1.7e-15 and 9.6e-7: a weighted mean of the moments of all steps.
RESIDUAL_RUNNING = Tolerance(fp64=5e-14, fp32=1e-5)
# Layers of the simple U-Net and of the diffusion transformer, and their gradients. 3.2e-15 and 1.1e-6, of the block's
# queries: their gradients pass a softmax twice.
ZOO_LAYERS = Tolerance(fp64=3e-14, fp32=1e-5)
# Absolute, in float64 whatever the precision. 1.7e-15: angles up to 13.
POSITIONS = Tolerance(fp64=2e-14, fp32=2e-14)
# Functions between the layers, and their slopes. 2.5e-15 of silu and 4.8e-7 of tanh, whose slope is a difference.
ZOO_FUNCTIONS = Tolerance(fp64=2e-14, fp32=5e-6)
# Elementwise. 2.4e-16 and 1.1e-7.
ZOO_LOSSES = Tolerance(fp64=5e-15, fp32=1e-6)
