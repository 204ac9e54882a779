"""TF-CLIP: Learning Text-Free CLIP for Video-Based Person Re-Identification (Yu, Liu, Wang, Zhang, Lu; AAAI
2024). The parts have the paper's names; their formulas are those of the authors' code,
github.com/AsuradaYuci/TF-CLIP.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vreid_ext.losses import CrossEntropyLoss, TripletLoss, gather_with_gradient
from vreid_ext.models.backbones import TokenBackbone, clip_projection, resolve_backbone
from vreid_ext.models.clips import check_clips, training_label
from vreid_ext.models.heads import bn_neck, classifier
from vreid_ext.models.output import TrainingOutput
from vreid_ext.models.registry import register_model
from vreid_ext.nn.frames import each_frame, mean_over_frames

_HEAD = 64  # channels of an attention head, as in CLIP


class Attention(nn.Module):
    """Multi-head attention of x (N,n,D) to a context (N,m,D), by default to itself.

    Call: `layer(x, context=None, mask=None)` with mask (N,m) bool, False for entries of the context that are
    ignored.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.heads = max(1, dim // _HEAD)
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        context = x if context is None else context
        q, k, v = (
            layer(each).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, each in ((self.query, x), (self.key, context), (self.value, context))
        )
        attended = F.scaled_dot_product_attention(q, k, v, None if mask is None else mask[:, None, None])
        mixed: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return mixed


class SequencePrompt(nn.Module):
    """Sequence-Specific Prompt (SSP): adapts the CLIP-Memory to a sequence.

    `layers` times, with M = W_M LN(memory) and V = LN(W_V LN(tokens)):

        M <- M + SA(LN(M));  M <- M + CA(LN(M), V);  M <- M + MLP(LN(M))

    Call: `prompt(memory, tokens)` with memory (B,K,D), tokens (B,n,D) returns W LN(M) (B,K,D), to be added to
    the memory.
    """

    def __init__(self, dim: int, layers: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        self.of_memory = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim))
        self.of_tokens = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.LayerNorm(dim))
        self.layers = nn.ModuleList(_PromptLayer(dim, dropout) for _ in range(layers))
        self.out = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, memory: Tensor, tokens: Tensor) -> Tensor:
        prompt, tokens = self.of_memory(memory), self.of_tokens(tokens)
        for layer in self.layers:
            prompt = layer(prompt, tokens)
        updated: Tensor = self.out(prompt)
        return updated


class TemporalMemoryDiffusion(nn.Module):
    """Temporal Memory Diffusion (TMD) of the tokens x[t] (n,C) of the frames t of a clip.

    Temporal Memory Construction (TMC), over the frames:

        m[t] = W mean_i x[t,i];  m <- m + SA(LN(m))

    Memory Diffusion (MD), over the tokens of each frame and its memory:

        z[t] = [x[t], m[t]];  z <- z + SA(LN(z));  z <- z + MLP(LN(z))

    Call: `diffusion(x, valid=None)` with x (B,T,n,C), valid (B,T) bool; returns the mean of z over the tokens
    (B,T,C).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.memory = nn.Linear(dim, dim)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.over_frames, self.over_tokens = Attention(dim), Attention(dim)
        self.mlp = _mlp(dim)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        of_memory, of_tokens, of_mlp = self.norms
        m = self.memory(x.mean(2))
        m = m + self.over_frames(of_memory(m), mask=valid)
        z = torch.cat([x, m[:, :, None]], 2).flatten(0, 1)
        z = z + self.over_tokens(of_tokens(z))
        z = z + self.mlp(of_mlp(z))
        return z.mean(1).unflatten(0, x.shape[:2])


@register_model("tfclip")
class TFCLIP(nn.Module):
    """The TF-CLIP model: a CLIP image encoder, an identity memory in place of text, a temporal module.

    With the class tokens c[t] and all tokens x[t] of the encoder and its projection P to CLIP's space:

        v = mean_t c[t]        p = mean_t P c[t]        f[t] = TMD(x)[t], with fixed x        s = mean_t f[t]

    CLIP-Memory M (K,D): for each training identity, the mean of p over its tracklets, computed before the
    training with the initial weights (`remember`) and then fixed. A clip is compared with the memory that SSP
    adapts to it: logits[k] = <p, M[k] + SSP(M, mean_t P x[t])[k]>.

    Args:
        num_classes: K, number of training identities.
        projected: D, the size of CLIP's space; 512 for ViT-B.
        memory: use the CLIP-Memory with SSP.
        temporal: use TMD.
        label_smoothing, margin: of the cross-entropies and of the triplet losses in `extras`.
        test_neck: feature of the evaluation: "before", v, p and s concatenated (as in the code's
            configuration); "after", v and p after their BNNecks.
        backbone: a name for `build_backbone` of a network of tokens with a class token, or a `TokenBackbone`.
            OpenAI's weights belong to "timm:vit_base_patch16_clip_quickgelu_224".
        weights: see `build_backbone`. If the file contains CLIP's projection to `projected` dimensions, it is
            used; otherwise P starts from random numbers.
        input_size, backbone_options: passed to `build_backbone`. A recipe fills in `input_size`.

    Call: `model(clips, valid=None, label=None)` with clips (B,T,3,h,w), valid (B,T) bool, False for padding
    frames of short clips, and label (B,) integer, required in training. In training it returns a
    `TrainingOutput`: logits of v after its BNNeck, v, and in `extras`

        branch_softmax: the cross-entropies of p and of s after their BNNecks
        branch_triplet: the triplet losses of p and of s
        frame_softmax:  the cross-entropy of f[t] after a BNNeck, with the classifier of s
        memory:         the cross-entropy of the memory's logits

    In evaluation it returns the feature (B,D).

    Left out: the camera embeddings of the code (`SIE_CAMERA`), because they need the camera of every clip at
    test time.

    Attributes:
        takes: the model takes the entry "label" of a batch.
        feature_dim: size of the feature.

    Raises:
        TypeError, ValueError: an argument has the wrong type or value.
    """

    takes = ("label",)

    def __init__(
        self,
        num_classes: int,
        *,
        projected: int = 512,
        memory: bool = True,
        temporal: bool = True,
        label_smoothing: float = 0.1,
        margin: float = 0.3,
        test_neck: str = "before",
        backbone: str | nn.Module = "timm:vit_base_patch16_clip_quickgelu_224",
        weights: str | Path = "none",
        input_size: Sequence[int] | None = None,
        backbone_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for name, number in (("num_classes", num_classes), ("projected", projected)):
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"{name}: expected an int of at least 1, got {number!r}")
        if test_neck not in ("before", "after"):
            raise ValueError(f"test_neck: expected 'before' or 'after', got {test_neck!r}")
        encoder, channels = resolve_backbone(backbone, weights, 2, input_size, backbone_options)
        if not isinstance(encoder, TokenBackbone) or not getattr(encoder.network, "num_prefix_tokens", 0):
            raise ValueError(
                "backbone: expected a network of tokens with a class token (timm:vit_...), got "
                f"{backbone if isinstance(backbone, str) else type(backbone).__name__!r}"
            )
        self.backbone, self.test_neck = encoder, test_neck
        self.projection = nn.Linear(channels, projected, bias=False)
        nn.init.normal_(self.projection.weight, std=channels**-0.5)
        if isinstance(backbone, str):
            found = clip_projection(backbone, encoder, weights)
            if found is not None and found.shape == self.projection.weight.shape:
                self.projection.weight.data.copy_(found)

        self.prompt = SequencePrompt(projected) if memory else None
        self.memory: Tensor
        self.register_buffer(
            "memory", torch.zeros(num_classes, projected, dtype=torch.get_default_dtype()) if memory else None
        )
        self.diffusion = TemporalMemoryDiffusion(channels) if temporal else None
        # v, p, s and f
        sizes = {"class": channels, "projected": projected}
        sizes |= {"temporal": channels, "frame": channels} if temporal else {}
        self.necks = nn.ModuleDict({name: bn_neck(size) for name, size in sizes.items()})
        self.classifiers = nn.ModuleDict(
            {name: classifier(size, num_classes) for name, size in sizes.items() if name != "frame"}
        )
        self.cross_entropy = CrossEntropyLoss(label_smoothing)
        self.triplet = TripletLoss(margin)
        tested = [*sizes.values()][:2] if test_neck == "after" else [*sizes.values()][:3]
        self.feature_dim = sum(tested)

    def forward(
        self, clips: Tensor, valid: Tensor | None = None, label: Tensor | None = None
    ) -> TrainingOutput | Tensor:
        check_clips(clips, valid)
        if self.training:
            label = training_label(label)
        x = self._tokens(clips)
        features = {
            "class": mean_over_frames(x[:, :, 0], valid),
            "projected": mean_over_frames(self.projection(x[:, :, 0]), valid),
        }
        frames = None if self.diffusion is None else self.diffusion(x.detach(), valid)
        if frames is not None:
            features["temporal"] = mean_over_frames(frames, valid)
        if label is not None and self.training:
            return self._training_output(features, frames, x, valid, label)
        if self.test_neck == "after":
            return torch.cat([self.necks[name](features[name]) for name in ("class", "projected")], 1)
        return torch.cat([*features.values()], 1)

    def describe(self, clips: Tensor, valid: Tensor | None = None) -> Tensor:
        """p (B,D) of clips, the rows of the CLIP-Memory."""
        return mean_over_frames(self.projection(self._tokens(clips)[:, :, 0]), valid)

    @torch.no_grad()
    def remember(self, features: Tensor, labels: Tensor) -> None:
        """Set the CLIP-Memory: for each identity the mean of the features (N,D) with its label (N,).

        Raises:
            ValueError: an identity has no feature.
        """
        counts = torch.bincount(labels, minlength=len(self.memory))
        if len(counts) > len(self.memory) or not counts.all():
            raise ValueError(
                f"labels: expected each of 0 to {len(self.memory) - 1}, got {labels.unique().tolist()}"
            )
        sums = torch.zeros_like(self.memory).index_add_(0, labels, features.to(self.memory))
        self.memory.copy_(sums / counts[:, None])

    def _tokens(self, clips: Tensor) -> Tensor:
        """All tokens (B,T,n,C) of the frames of clips, the class token first."""
        tokens = self.backbone.tokens(clips.flatten(0, 1))
        patches = tokens.maps.flatten(2).transpose(1, 2)
        return torch.cat([tokens.prefix, patches], 1).unflatten(0, clips.shape[:2])

    def _training_output(
        self,
        features: dict[str, Tensor],
        frames: Tensor | None,
        x: Tensor,
        valid: Tensor | None,
        label: Tensor,
    ) -> TrainingOutput:
        logits = {name: self.classifiers[name](self.necks[name](each)) for name, each in features.items()}
        others = [name for name in features if name != "class"]
        identities = gather_with_gradient(label)
        extras = {
            "branch_softmax": torch.stack([self.cross_entropy(logits[name], label) for name in others]).sum(),
            "branch_triplet": torch.stack(
                [self.triplet(gather_with_gradient(features[name]), identities) for name in others]
            ).sum(),
        }
        if frames is not None:
            scores = self.classifiers["temporal"](each_frame(self.necks["frame"], frames, valid))
            seen = torch.ones(frames.shape[:2], dtype=torch.bool, device=x.device) if valid is None else valid
            targets = label[:, None].expand(seen.shape)[seen]
            extras["frame_softmax"] = self.cross_entropy(scores[seen], targets)
        if self.prompt is not None:
            tokens = mean_over_frames(self.projection(x), valid)
            memory = self.memory.to(tokens.dtype).expand(len(tokens), -1, -1)
            adapted = memory + self.prompt(memory, tokens)
            compared = torch.einsum("bd,bkd->bk", features["projected"], adapted)
            extras["memory"] = self.cross_entropy(compared, label)
        return TrainingOutput(logits["class"], features["class"], extras)


class _PromptLayer(nn.Module):
    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.to_itself, self.to_tokens, self.mlp = Attention(dim), Attention(dim), _mlp(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        first, second, third = self.norms
        x = x + self.dropout(self.to_itself(first(x)))
        x = x + self.dropout(self.to_tokens(second(x), tokens))
        return x + self.dropout(self.mlp(third(x)))


class _QuickGELU(nn.Module):
    """CLIP's approximation of GELU."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1.702 * x).sigmoid()


def _mlp(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, 4 * dim), _QuickGELU(), nn.Linear(4 * dim, dim))
