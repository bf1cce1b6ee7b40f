"""One step of a case with PyTorch and PEFT, measured as bench/peers/measure.ts measures programs, and printed as the same line of JSON.

Run by bench/peers/pytorch/run.ts, which writes the case: step.py CASE.json TIMED_STEPS

Made with Python 3.11, torch 2.15.0, transformers 5.24.0, peft 0.21.2; the line of JSON says what it ran with. Everything is f32, on the
CPU with as many threads as PyTorch takes, or on CUDA where LIMBECK_PEERS_DEVICE=cuda.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy
import peft
import torch
import torch.nn.functional as F
import transformers

DEVICE = torch.device(os.environ.get("LIMBECK_PEERS_DEVICE", "cpu"))
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def open_model(folder: str, layers: list[int] | None = None) -> transformers.PreTrainedModel:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.requires_grad_(False)
    if layers is not None:
        model.model.layers = torch.nn.ModuleList([model.model.layers[i] for i in layers])
        model.config.num_hidden_layers = len(layers)
        for index, layer in enumerate(model.model.layers):
            layer.self_attn.layer_idx = index
    return model.to(DEVICE)


class Program:
    """A teacher, a student with LoRA, and AdamW."""

    def __init__(self, case: dict, folder: Path):
        settings = case["settings"]
        self.settings = settings
        shape = (case["segments"], case["segmentLength"])
        self.ids = torch.tensor(case["tokens"], device=DEVICE).view(shape)
        # The label of a position is the token after it already, or -100.
        self.labels = torch.tensor(case["labels"], device=DEVICE).view(-1)
        self.supervised = (self.labels >= 0).sum()
        self.teacher = open_model(case["modelFolder"])
        config = peft.LoraConfig(
            r=settings["rank"], lora_alpha=settings["alpha"], target_modules=PROJECTIONS, lora_dropout=0.0
        )
        self.student = peft.get_peft_model(open_model(case["modelFolder"], case["keptLayers"]), config)
        self.load_adapter(case["adapter"], folder)
        self.parameters = [p for p in self.student.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.parameters,
            lr=settings["learningRate"],
            betas=(settings["beta1"], settings["beta2"]),
            eps=settings["epsilon"],
            weight_decay=settings["weightDecay"],
        )

    def load_adapter(self, tensors: list[dict], folder: Path) -> None:
        values = numpy.fromfile(folder / "adapter.f32", dtype="<f4")
        state, at = {}, 0
        for tensor in tensors:
            count = tensor["shape"][0] * tensor["shape"][1]
            part = torch.from_numpy(values[at : at + count].reshape(tensor["shape"]))
            state[f"base_model.model.{tensor['name']}"] = part.to(DEVICE)
            at += count
        found = peft.set_peft_model_state_dict(self.student, state)
        wanted = sum(p.requires_grad for p in self.student.parameters())
        if found.unexpected_keys or len(state) != wanted:
            raise SystemExit(f"the adapter does not fit: {found.unexpected_keys[:3]}, {len(state)} of {wanted} tensors")

    def step(self) -> float:
        """One whole step; returns the loss before the update."""
        settings = self.settings
        with torch.no_grad():
            target = F.log_softmax(self.teacher(self.ids, use_cache=False).logits.flatten(0, 1), dim=-1)
        learner = F.log_softmax(self.student(input_ids=self.ids, use_cache=False).logits.flatten(0, 1), dim=-1)
        entropy = F.nll_loss(learner, self.labels, ignore_index=-100, reduction="sum")
        divergence = (target.exp() * (target - learner)).sum(-1)[self.labels >= 0].sum()
        loss = settings["crossEntropyWeight"] * entropy + settings["forwardKlWeight"] * divergence
        loss = loss / self.supervised
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, settings["maxNorm"])
        self.optimiser.step()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        return loss.item()


def device_name() -> str:
    versions = f"PyTorch {torch.__version__}, transformers {transformers.__version__}, PEFT {peft.__version__}"
    if DEVICE.type == "cuda":
        return f"{torch.cuda.get_device_name()} ({versions})"
    return f"the CPU, {torch.get_num_threads()} threads ({versions})"


def main() -> None:
    path = Path(sys.argv[1])
    case, timed = json.loads(path.read_text()), int(sys.argv[2])
    began = time.perf_counter()
    program = Program(case, path.parent)
    times, losses = [], []
    for i in range(timed + 1):
        start = began if i == 0 else time.perf_counter()
        losses.append(program.step())
        times.append((time.perf_counter() - start) * 1e3)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        json.dumps(
            {
                "peer": "pytorch",
                "case": case["name"],
                "firstStepMs": times[0],
                "stepMs": times[1:],
                "losses": losses[:4],
                # Kilobytes on Linux, bytes on macOS.
                "peakRssBytes": peak if sys.platform == "darwin" else peak * 1024,
                "adapterName": device_name(),
            }
        )
    )


main()
