"""The projector of a LLaVA model with the weight names of XTuner, `model.0` and `model.2`, for AutoModel."""

from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.activations import ACT2FN


class ProjectorConfig(PretrainedConfig):
    """Widths and depth of the projector."""

    model_type = "projector"

    def __init__(self, visual_hidden_size=4096, llm_hidden_size=4096, depth=2, hidden_act="gelu", bias=True, **others):
        self.visual_hidden_size = visual_hidden_size
        self.llm_hidden_size = llm_hidden_size
        self.depth = depth
        self.hidden_act = hidden_act
        self.bias = bias
        super().__init__(**others)


class ProjectorModel(PreTrainedModel):
    """Linear layers with an activation between them."""

    config_class = ProjectorConfig
    base_model_prefix = "model"

    def __init__(self, config: ProjectorConfig):
        super().__init__(config)
        widths = [config.visual_hidden_size, *[config.llm_hidden_size] * config.depth]
        layers: list[nn.Module] = []
        for number in range(config.depth):
            if number:
                layers.append(ACT2FN[config.hidden_act])
            layers.append(nn.Linear(widths[number], widths[number + 1], bias=config.bias))
        self.model = nn.Sequential(*layers)
        self.post_init()

    def forward(self, x: Tensor) -> Tensor:
        """Map features float[..., visual_hidden_size] to float[..., llm_hidden_size]."""
        return self.model(x)
