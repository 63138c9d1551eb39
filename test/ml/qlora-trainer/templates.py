"""Chat templates as published model families write them, each with its turns' markers.

``header`` and ``end`` are what an independent scan looks for: an answer is everything between an
assistant header and the end of its turn, the end included.
"""

from typing import Any, Dict, List, NamedTuple


class Template(NamedTuple):
    source: str
    header: str
    end: str
    #: Further special tokens that the tokenizer needs.
    special: List[str]
    system: bool = True


TEMPLATES: Dict[str, Template] = {
    "chatml": Template(
        "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>'"
        " + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
        "{% endif %}",
        "<|im_start|>assistant\n",
        "<|im_end|>",
        [],
    ),
    "llama-2": Template(
        "{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set sys = "
        "messages[0]['content'] %}{% else %}{% set rest = messages %}{% set sys = false %}"
        "{% endif %}{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{% if loop.index0 == 0 and sys %}"
        "{% set content = '<<SYS>>\n' + sys + '\n<</SYS>>\n\n' + m['content'] %}{% else %}"
        "{% set content = m['content'] %}{% endif %}{% if m['role'] == 'user' %}{{ bos_token + "
        "'[INST] ' + content.strip() + ' [/INST]' }}{% else %}{{ ' ' + content.strip() + ' ' + "
        "eos_token }}{% endif %}{% endfor %}",
        " [/INST]",
        " </s>",
        [],
    ),
    "llama-3": Template(
        "{% for m in messages %}{% set content = '<|start_header_id|>' + m['role'] + "
        "'<|end_header_id|>\n\n' + m['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
        "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
        "{% endif %}",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
        ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    ),
    "mistral": Template(
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + "
        "m['content'] + ' [/INST]' }}{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + "
        "eos_token }}{% else %}{{ raise_exception('only user and assistant') }}{% endif %}"
        "{% endfor %}",
        " [/INST]",
        "</s>",
        [],
        system=False,
    ),
    "gemma": Template(
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}{% for m in messages %}{% if (m['role'] == 'assistant') %}{% set role = "
        "'model' %}{% else %}{% set role = m['role'] %}{% endif %}{{ '<start_of_turn>' + role + "
        "'\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt "
        "%}{{'<start_of_turn>model\n'}}{% endif %}",
        "<start_of_turn>model\n",
        "<end_of_turn>",
        ["<start_of_turn>", "<end_of_turn>"],
        system=False,
    ),
    "phi-3": Template(
        "{% for m in messages %}{% if m['role'] == 'system' %}{{'<|system|>\n' + m['content'] + "
        "'<|end|>\n'}}{% elif m['role'] == 'user' %}{{'<|user|>\n' + m['content'] + '<|end|>\n'}}"
        "{% elif m['role'] == 'assistant' %}{{'<|assistant|>\n' + m['content'] + '<|end|>\n'}}"
        "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}"
        "{{ eos_token }}{% endif %}",
        "<|assistant|>\n",
        "<|end|>",
        ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
    ),
    "zephyr": Template(
        "{% for m in messages %}\n{% if m['role'] == 'user' %}\n{{ '<|user|>\n' + m['content'] + "
        "eos_token }}\n{% elif m['role'] == 'system' %}\n{{ '<|system|>\n' + m['content'] + "
        "eos_token }}\n{% elif m['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + m['content'] "
        "+ eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n"
        "{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
        "<|assistant|>\n",
        "</s>",
        [],
    ),
    "deepseek": Template(
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|User|>' + "
        "m['content'] }}{% elif m['role'] == 'assistant' %}{{ '<|Assistant|>' + m['content'] + "
        "'<|end_of_sentence|>' }}{% else %}{{ m['content'] + '\n\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|Assistant|>' }}{% endif %}",
        "<|Assistant|>",
        "<|end_of_sentence|>",
        ["<|User|>", "<|Assistant|>", "<|end_of_sentence|>"],
    ),
    "command-r": Template(
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
        "{{ '<|START|><|USER|>' + m['content'].strip() + '<|END|>' }}{% elif m['role'] == "
        "'system' %}{{ '<|START|><|SYSTEM|>' + m['content'].strip() + '<|END|>' }}{% else %}"
        "{{ '<|START|><|CHATBOT|>'  + m['content'].strip() + '<|END|>' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|START|><|CHATBOT|>' }}{% endif %}",
        "<|START|><|CHATBOT|>",
        "<|END|>",
        ["<|START|>", "<|END|>", "<|USER|>", "<|SYSTEM|>", "<|CHATBOT|>"],
    ),
    "vicuna": Template(
        "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] + ' ' }}{% endif %}"
        "{% for m in messages %}{% if m['role'] == 'user' %}{{ 'USER: ' + m['content'].strip() + "
        "' ' }}{% elif m['role'] == 'assistant' %}{{ 'ASSISTANT: ' + m['content'].strip() + "
        "eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}"
        "{% endif %}",
        "ASSISTANT:",
        "</s>",
        [],
    ),
    "qwen-thinking": Template(
        "{% for m in messages %}{% set content = m['content'] %}{% if m['role'] == 'assistant' %}"
        "{% set thought = '' %}{% if '</think>' in content %}{% set thought = "
        "content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
        "{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
        "{{ '<|im_start|>assistant\n' }}{% if loop.last %}{{ '<think>\n' + thought.strip('\n') + "
        "'\n</think>\n\n' }}{% endif %}{{ content.lstrip('\n') + '<|im_end|>\n' }}{% else %}"
        "{{ '<|im_start|>' + m['role'] + '\n' + content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "<|im_start|>assistant\n",
        "<|im_end|>",
        [],
    ),
    "generation-blocks": Template(
        "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
        "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}"
        "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        "<|im_start|>assistant\n",
        "<|im_end|>",
        [],
    ),
}


def conversations(system: bool) -> List[List[Dict[str, Any]]]:
    """One turn, several turns, white space at every end, many bytes per letter, code, thinking."""
    first = [{"role": "system", "content": "Be brief."}] if system else []
    answers = [
        ["plain"],
        ["one", "two words", "three\nlines\nof it"],
        ["  spaces before", "spaces after  ", "\n\nlines around\n"],
        ["naïve café — 日本語 🙂👩‍👩‍👧", "x" * 40, "é"],
        ["def f(x):\n    return {'a': [x]}  # {{ not jinja }} {% nor this %}\n"],
        ["USER assistant [INST not a marker", "<think> is only a word here"],
        ["<think>\nlet me see\n</think>\n\nforty-two"],
        ["<think>a</think>b", "<think>c</think>d"],
    ]
    found: List[List[Dict[str, Any]]] = []
    for turns in answers:
        chat = list(first)
        for number, answer in enumerate(turns):
            chat.append({"role": "user", "content": f"question {number}? "})
            chat.append({"role": "assistant", "content": answer})
        found.append(chat)
    return found
