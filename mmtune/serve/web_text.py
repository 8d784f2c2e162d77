"""What the page says, in English and Chinese. Errors of the package are English everywhere, as in a terminal."""

LANGUAGES = {"en": "English", "zh": "中文"}
"""Code -> what the switch on the page calls it."""

TEXTS: dict[str, tuple[str, str]] = {
    # the tabs
    "tab_chat": ("Chat", "对话"),
    "tab_runs": ("Training runs", "训练记录"),
    "language": ("Language", "语言"),
    # the dialogue
    "ask": ("Ask about an image, or anything else", "输入问题，可附图片"),
    "ask_text": ("Ask something", "请输入问题"),
    "your_question": ("Your question", "你的问题"),
    "empty": (
        "Add an image with the paper clip, paste it, or drop it below. Then ask.",
        "点击回形针添加图片，也可以粘贴或拖入图片，然后提问。",
    ),
    "empty_text": ("Ask something below.", "请在下方提问。"),
    "empty_before": (
        "The model before training answers the same questions here.",
        "训练前的模型会在这里回答同样的问题。",
    ),
    "before_of": ("{name}, before training", "{name}（训练前）"),
    "base": ("Base model", "基础模型"),
    "compare": ("Compare with before training", "与训练前对比"),
    "stop": ("Stop", "停止"),
    "retry": ("Answer again", "重新回答"),
    "undo": ("Take back", "撤回"),
    "new": ("New dialogue", "新对话"),
    "copy": ("Copy dialogue", "复制对话"),
    "download": ("Download dialogue", "下载对话"),
    "examples": ("Examples", "示例"),
    "you": ("You", "用户"),
    "model": ("Model", "模型"),
    # settings
    "settings": ("Settings", "设置"),
    "system": ("System message", "系统提示词"),
    "system_info": ("A change begins a new dialogue.", "修改后会开始新的对话。"),
    "temperature": ("Temperature", "温度"),
    "temperature_info": ("0: always the likeliest word", "0 表示总是选择概率最高的词"),
    "max_new_tokens": ("Longest answer, in tokens", "回答的最大长度（token 数）"),
    "top_p": ("Top-p", "Top-p"),
    "top_p_info": ("Draw from the likeliest words up to this probability", "只在累计概率达到该值的词中采样"),
    "top_k": ("Top-k", "Top-k"),
    "top_k_info": ("Draw from so many likeliest words; 0: all", "只在概率最高的若干个词中采样，0 表示不限"),
    "repetition_penalty": ("Repetition penalty", "重复惩罚"),
    "repetition_penalty_info": ("Above 1: fewer repetitions", "大于 1 时减少重复"),
    "seed": ("Seed", "随机种子"),
    "seed_info": (
        "The same seed and questions give the same answers",
        "种子与问题都相同时，回答也相同",
    ),
    # the line below the dialogue
    "waiting": ("Waiting for the model: {count} before you", "排队中，前面还有 {count} 个请求"),
    "answering": ("{name} is answering", "{name} 正在回答"),
    "stopped": ("Stopped. What was said stays part of the dialogue.", "已停止，已生成的内容保留在对话中。"),
    "cut_off": (
        "The answer was cut off at its longest length: see the settings.",
        "回答达到最大长度，已被截断，可在设置中调整。",
    ),
    "unread": (
        "The dialogue is long: {name} reads no more than the last {count} question(s).",
        "对话较长，{name} 只会读取最近 {count} 个问题。",
    ),
    "greedy": (
        "At temperature 0 the same model says the same again.",
        "温度为 0 时，同一模型会给出相同的回答。",
    ),
    "anew": ("A new dialogue: the system message has changed.", "系统提示词已修改，已开始新的对话。"),
    "copied": ("Copied", "已复制"),
    "nothing_said": ("Nothing was said yet.", "还没有对话内容。"),
    "used": ("{used} of {context} tokens", "已用 {used} / {context} 个 token"),
    # training runs
    "run": ("Run", "训练任务"),
    "no_runs": ("No training run below {folder} yet.", "{folder} 下还没有训练记录。"),
    "running": ("training now", "训练中"),
    "complete": ("complete", "已完成"),
    "incomplete": ("ended before its end", "未完成，已中断"),
    "step_of": ("step {step} of {total}", "第 {step} / {total} 步"),
    "step": ("step {step}", "第 {step} 步"),
    "time_left": ("about {time} left", "约剩 {time}"),
    "time_taken": ("{time} so far", "已用 {time}"),
    "took": ("took {time}", "用时 {time}"),
    "no_steps": ("No step has been logged yet.", "还没有记录任何训练步。"),
    "loss": ("Loss per supervised token", "损失（每个监督 token）"),
    "each_step": ("each step", "每步"),
    "mean": ("running mean", "滑动平均"),
    "held_out": ("held out", "验证集"),
    "rate": ("Learning rate", "学习率"),
    "grad_norm": ("Gradient norm", "梯度范数"),
    "accuracy": ("Token accuracy, held out", "验证集 token 准确率"),
    "optimizer_step": ("step", "步"),
    "samples": ("Answers while training", "训练过程中的回答"),
    "samples_step": ("step", "步数"),
    "samples_answer": ("answer", "回答"),
    "no_answer": ("(empty)", "（空）"),
    "alarms": ("Alarms", "告警"),
    "card": ("Run card", "训练卡片"),
    "card_verb": ("Stage", "阶段"),
    "card_llm": ("Language model", "语言模型"),
    "card_vision": ("Vision encoder", "视觉编码器"),
    "card_init": ("Starts from", "起点"),
    "card_trained": ("Trained", "训练的部分"),
    "card_adapter": ("Adapter", "适配器"),
    "card_data": ("Data", "数据"),
    "card_samples": ("Samples, records", "样本数 / 记录数"),
    "card_skipped": ("Skipped records", "跳过的记录"),
    "card_tokens": ("Tokens, supervised", "token 数 / 监督 token 数"),
    "card_epochs": ("Epochs", "训练轮数"),
    "card_batch": ("Batch x accumulation", "批大小 × 梯度累积"),
    "card_rate": ("Learning rate, schedule", "学习率与调度"),
    "card_seed": ("Seed", "随机种子"),
    "card_best": ("Best checkpoint", "最佳检查点"),
    "card_speed": ("Supervised tokens a second", "每秒监督 token 数"),
    "card_memory": ("Peak memory", "峰值内存"),
    "card_finished": ("Finished", "完成时间"),
    "card_versions": ("Versions", "版本"),
    # the way in
    "password": ("Password", "密码"),
    "enter": ("Enter", "进入"),
    "wrong_password": ("That is not the password.", "密码不正确。"),
}
"""Key -> English, Chinese."""


def text(key: str, language: str) -> str:
    """Return what the page says, in a language of `LANGUAGES`."""
    return TEXTS[key][list(LANGUAGES).index(language)]


def preferred_language(header: str) -> str:
    """Return the language that a browser asks for first of those that the page speaks; English where it knows neither.

    >>> [preferred_language(each) for each in ("zh-CN,zh;q=0.9,en;q=0.8", "de,en;q=0.5,zh;q=0.9", "de", "")]
    ['zh', 'zh', 'en', 'en']

    Args:
        header: `Accept-Language`.
    """
    ranked: list[tuple[float, str]] = []
    for entry in header.split(",")[:20]:
        name, _, options = entry.strip().partition(";")
        language = name.strip().lower().partition("-")[0]
        if language in LANGUAGES:
            ranked.append((_quality(options), language))
    return max(ranked, key=lambda pair: pair[0], default=(0.0, "en"))[1]


def _quality(options: str) -> float:
    try:
        return float(options.strip().removeprefix("q=") or 1)
    except ValueError:
        return 0.0
