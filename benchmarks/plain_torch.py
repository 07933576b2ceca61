"""The plain DMD cycle in PyTorch, as one writes it first: what benchmarks/dmd_cycle.py and wide_cycle.py compare with.

The network here is that of flashjax/models/qwen_image_21.py, written from the formulas, over a dict of weights with the
names of the exported file: text and image run through the blocks as one sequence, under one mask. No torch.compile.
"""

import numpy as np
import torch
import torch.nn.functional as F

from flashjax import flow


def velocity(w: dict, c, text, length, z, t):
    """v like z [B, h, w, channels] at t [B]. text [B, L, context] is right-padded after ``length`` [B] tokens,
    ``c`` is the network's Config."""
    batch, tokens, (height, width) = len(z), text.shape[1], z.shape[1:3]
    x = F.rms_norm(text, text.shape[-1:], 1 + w["txt_in.text_norm.weight"], c.eps)
    x = F.linear(x, w["txt_in.in_layer.weight"])
    x = F.linear(F.gelu(x, approximate="tanh"), w["txt_in.out_layer.weight"]).expand(batch, -1, -1)
    h = torch.cat([x, F.linear(z.flatten(1, 2), w["img_in.weight"])], 1)

    # Text is modulated as if t = 0. Rows [B, S, width]: scale, gate, scale, gate.
    time = "time_text_embed.timestep_embedder.linear_"
    freqs = torch.exp(-torch.log(torch.tensor(1e4)) * torch.arange(128) / 128)
    angle = 1000 * torch.cat([torch.zeros(1), t])[:, None] * freqs
    temb = F.linear(torch.cat([angle.cos(), angle.sin()], -1), w[time + "1.weight"])
    temb = F.silu(F.linear(F.silu(temb), w[time + "2.weight"]))
    rows = F.linear(temb, w["modulation.1.weight"])
    rows = [rows[:1, None].expand(batch, tokens, -1), rows[1:, None].expand(-1, height * width, -1)]
    rows = torch.cat(rows, 1)
    scale1, gate1, scale2, gate2 = rows.chunk(4, -1)

    # Positions (frame, row, column): text counts on in all three, the image stands behind its sample's text, centred.
    y, x = (torch.arange(n) - (n - n // 2) for n in (height, width))
    place = torch.zeros(batch, tokens + height * width, 3)
    place[:, :tokens] = torch.arange(tokens)[:, None]
    place[:, tokens:, 0], place[:, tokens:, 1:] = length[:, None], torch.cartesian_prod(y, x)
    angle = [place[..., i, None] * c.theta ** -(torch.arange(0, d, 2) / d) for i, d in enumerate(c.axes_dims)]
    angle = torch.cat(angle, -1)[:, None]
    rotation = torch.polar(torch.ones_like(angle), angle)

    def rotate(x):
        return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * rotation).flatten(-2)

    # Text is causal, the image sees all; nobody sees padding.
    index = torch.arange(tokens + height * width)
    mask = (index[:, None] >= index) | (index[:, None] >= tokens)
    mask = mask & ((index >= tokens) | (index < length[:, None]))[:, None, None]

    for i in range(c.layers):
        b = f"transformer_blocks.{i}."
        a = F.layer_norm(h, h.shape[-1:], eps=c.eps) * (1 + scale1)
        q, k, v = (F.linear(a, w[f"{b}attn.to_{n}.weight"]).unflatten(-1, (c.heads, -1)).transpose(1, 2) for n in "qkv")
        q = rotate(F.rms_norm(q, q.shape[-1:], w[b + "attn.norm_q.weight"], c.eps))
        k = rotate(F.rms_norm(k, k.shape[-1:], w[b + "attn.norm_k.weight"], c.eps))
        a = F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(-2)
        h = h + gate1.tanh() * F.linear(a, w[f"{b}attn.to_out.0.weight"])
        a = F.layer_norm(h, h.shape[-1:], eps=c.eps) * (1 + scale2)
        a = F.silu(F.linear(a, w[f"{b}img_mlp.gate_layer.weight"])) * F.linear(a, w[f"{b}img_mlp.proj.weight"])
        h = h + gate2.tanh() * F.linear(a, w[f"{b}img_mlp.out.weight"])

    scale = F.linear(temb[1:], w["norm_out.linear.weight"])[:, None]
    h = F.layer_norm(h[:, tokens:], h.shape[-1:], eps=c.eps) * (1 + scale)
    return F.linear(h, w["proj_out.weight"]).reshape(z.shape)


class Cycle:
    """One student update, then ``critic_updates`` of the critic, each on a rollout of its own. Nothing is shared.
    ``network(weights, text, length, z, t)`` is the velocity of samples of ``shape``, (h, w, channels)."""

    def __init__(
        self, weights: dict, network, shape, distill, text, length, null, *, student_lr: float, critic_lr: float
    ):
        self.network, self.shape = network, shape
        self.d, self.text, self.length, self.null = distill, text, length, null
        self.grid = torch.linspace(1, 0, distill.nfe + 1, device=text.device)
        self.teacher = {n: w.clone() for n, w in weights.items()}
        self.ema = {n: w.clone() for n, w in weights.items()}
        self.student, self.critic = ({n: w.clone().requires_grad_() for n, w in weights.items()} for _ in range(2))
        self.student_adam, self.critic_adam = (
            torch.optim.AdamW(w.values(), lr, betas=(0.0, 0.99), weight_decay=0.0, fused=True)
            for w, lr in ((self.student, student_lr), (self.critic, critic_lr))
        )

    def velocity(self, weights, z, t):
        return self.network(weights, self.text, self.length, z, t)

    def noised(self, x, times):
        t = torch.empty(len(x), device=x.device).uniform_(times.low, times.high)
        t = flow.shift_time(t, times.shift)
        eps = torch.randn_like(x)
        s = t[:, None, None, None]
        return (1 - s) * x + s * eps, t, eps

    def generate(self, k: int):
        """The student's clean prediction at its step k; only that step keeps a gradient."""
        z = torch.randn(len(self.text), *self.shape, device=self.text.device)
        with torch.no_grad():
            for i in range(k):
                z = z + (self.grid[i + 1] - self.grid[i]) * self.velocity(self.student, z, self.grid[i].expand(len(z)))
        return z - self.grid[k] * self.velocity(self.student, z, self.grid[k].expand(len(z)))

    def update(self, loss, weights, adam):
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        adam.step()

    def student_update(self, k: int):
        x = self.generate(k)
        with torch.no_grad():
            z, t, _ = self.noised(x, self.d.student_times)
            fake, real = self.velocity(self.critic, z, t), self.velocity(self.teacher, z, t)
            none = self.network(self.teacher, *self.null, z, t)
            s = t[:, None, None, None]
            scale = torch.tensor(np.interp(t.cpu(), self.d.guidance.times, self.d.guidance.scales)).to(t)
            fake, real = z - s * fake, z - s * (none + scale[:, None, None, None] * (real - none))
            weight = 1 / ((x - real).abs().mean((1, 2, 3), keepdim=True) + 1e-6)
            target = x - weight * (fake - real)
        self.update(0.5 * (x - target).square().mean(), self.student, self.student_adam)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.values()), list(self.student.values()), 1 - self.d.ema_decay)

    def critic_update(self, k: int):
        with torch.no_grad():
            x = self.generate(k)
        z, t, eps = self.noised(x, self.d.critic_times)
        self.update((self.velocity(self.critic, z, t) - (eps - x)).square().mean(), self.critic, self.critic_adam)

    def __call__(self, k: int, critic_updates: int = 5):
        self.student_update(k)
        for _ in range(critic_updates):
            self.critic_update(k)
