"""Bodies of linalg.generic for the activations in layers.py: %a and %b in, %r out."""

SILU = """
%neg = arith.negf %a : f32
%exp = math.exp %neg : f32
%one = arith.constant 1.0 : f32
%den = arith.addf %one, %exp : f32
%act = arith.divf %a, %den : f32
"""
SWIGLU = SILU + "%r = arith.mulf %act, %b : f32"
RELU = "%z = arith.constant 0.0 : f32\n%r = arith.maximumf %a, %z : f32"
# min(g, 7) * sigmoid(1.702 * min(g, 7)) * (clamp(u, -7, 7) + 1)
CLAMPED_SWIGLU = """
%limit = arith.constant 7.0 : f32
%low = arith.constant -7.0 : f32
%alpha = arith.constant 1.702 : f32
%one = arith.constant 1.0 : f32
%g = arith.minimumf %a, %limit : f32
%u0 = arith.minimumf %b, %limit : f32
%u = arith.maximumf %u0, %low : f32
%scaled = arith.mulf %g, %alpha : f32
%neg = arith.negf %scaled : f32
%exp = math.exp %neg : f32
%den = arith.addf %one, %exp : f32
%glu = arith.divf %g, %den : f32
%u1 = arith.addf %u, %one : f32
%r = arith.mulf %u1, %glu : f32
"""
# gelu(a) * b, the tanh form
GEGLU_TANH = """
%half = arith.constant 0.5 : f32
%one = arith.constant 1.0 : f32
%k0 = arith.constant 0.7978845608028654 : f32
%k1 = arith.constant 0.044715 : f32
%a2 = arith.mulf %a, %a : f32
%a3 = arith.mulf %a2, %a : f32
%cubic = arith.mulf %k1, %a3 : f32
%inner = arith.addf %a, %cubic : f32
%scaled = arith.mulf %k0, %inner : f32
%tanh = math.tanh %scaled : f32
%plus = arith.addf %one, %tanh : f32
%halved = arith.mulf %half, %a : f32
%act = arith.mulf %halved, %plus : f32
%r = arith.mulf %act, %b : f32"""
