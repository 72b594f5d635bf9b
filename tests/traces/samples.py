"""A small file of every format, written as its publisher writes it."""

import json
from pathlib import Path

AZURE_2023 = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:17:03.9799600,4808,10\r\n"
    "2023-11-16 18:17:04.0319600,3180,8\r\n"
    "2023-11-16 18:17:04.0781490,110,27"
)
AZURE_2024 = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2024-05-10 00:00:00.009930+00:00,2162,5\n"
    "2024-05-10 00:00:00.017335+00:00,2399,6\n"
    "2024-05-10 00:00:01+00:00,76,15\n"
)
AZURE_2025 = (
    "TIMESTAMP,NumImages,ContextTokens,GeneratedTokens\n"
    "2024-10-15 00:00:00.100000+00:00,1,1200,30\n"
    "2024-10-15 00:00:00.350000+00:00,0,90,11\n"
)
AZURE_OFFSET = "StartTimeOffset,ContextTokens,GeneratedTokens\n0,374,44\n4314579000,396,109\n"
BURSTGPT_6 = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n"
    "45,ChatGPT,1087,230,1317,Conversation log\n"
    "45,GPT-4,417,276,693,API log\n"
    "118,ChatGPT,1360,0,1360,API log\n"
    "119,ChatGPT,0,0,0,API log\n"
)
BURSTGPT_8 = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "10.5,a7,3.2,GPT-4,100,20,120,Conversation log\n"
    "11.25,,1.5,GPT-4,50,7,57,API log\n"
    "12.75,b1,9,ChatGPT,60,8,68,Conversation log\n"
    "30,a7,2.0,GPT-4,140,30,170,Conversation log\n"
)
VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,374,44\n4.314579,396,109\n"
LENGTHS = (
    "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\r\n"
    "3742,284,4026,0.0758\r\n"
    "18,243,261,13.5\r\n"
)


CUSTOM_CSV = (
    "id,arrival_ms,input_tokens,output_tokens,session_id\n1,500,30,4,a\n2,750,31,5,\n3,1000,9,2,a\n"
)


def json_lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


MOONCAKE = json_lines(
    [
        {"timestamp": 0, "input_length": 1200, "output_length": 50, "hash_ids": [0, 1, 2]},
        {"timestamp": 0, "input_length": 1536, "output_length": 3, "hash_ids": [0, 1, 3]},
        {"timestamp": 0, "input_length": 100, "output_length": 9, "hash_ids": [4]},
        {"timestamp": 3000, "input_length": 513, "output_length": 70, "hash_ids": [0, 5]},
        {"timestamp": 3000, "input_length": 512, "output_length": 7, "hash_ids": [0]},
    ]
)
QWEN = json_lines(
    [
        {
            "chat_id": chat,
            "parent_chat_id": parent,
            "timestamp": time,
            "input_length": length,
            "output_length": 12,
            "type": "text",
            "turn": turn,
            "hash_ids": ids,
        }
        for chat, parent, time, length, turn, ids in (
            (7, -1, 0.5, 33, 1, [1, 2, 3]),
            (8, -1, 1.25, 16, 1, [4]),
            (9, 7, 9.0, 48, 2, [1, 2, 5]),
            (11, 3, 9.5, 20, 4, [6, 7]),
        )
    ]
)


def request(t: float, tokens: int, out: int, ids: list[int], **others: object) -> dict[str, object]:
    return {"t": t, "type": "n", "in": tokens, "out": out, "hash_ids": ids, **others}


SESSION_WITH_SUB_AGENTS: dict[str, object] = {
    "id": "trace_0001",
    "block_size": 64,
    "hash_id_scope": "local",
    "requests": [
        request(0.0, 130, 5, [1, 2], api_time=10.0),
        request(12.0, 200, 6, [1, 2, 3], api_time=8.0, think_time=2.0),
        {
            "t": 51.0,
            "type": "subagent",
            "duration_ms": 30000,
            "requests": [
                request(0.0, 70, 4, [9], api_time=5.0, think_time=0.0),
                request(25.0, 150, 4, [9, 10], api_time=5.0, think_time=20.0),
            ],
        },
        {
            "t": 55.0,
            "type": "subagent",
            "duration_ms": None,
            "requests": [request(0.0, 64, 3, [11], api_time=1.0)],
        },
        request(60.0, 260, 7, [1, 2, 3, 4], api_time=3.0, think_time=40.0),
    ],
}
PLAIN_SESSION: dict[str, object] = {
    "id": "trace_0002",
    "block_size": 64,
    "hash_id_scope": "local",
    "requests": [
        request(0.0, 64, 2, [1], api_time=1.0),
        request(5.0, 64, 0, [1], api_time=1.0, think_time=4.0),
        request(9.0, 130, 3, [1, 2], think_time=3.0),
    ],
}
AGENTIC = json_lines([SESSION_WITH_SUB_AGENTS, PLAIN_SESSION])
AGENTIC_PRETTY = json.dumps(SESSION_WITH_SUB_AGENTS, indent=2)


def round_of(session: str, index: int, start: str, end: str, tokens: int) -> dict[str, object]:
    return {
        "session_id": session,
        "round_index": index,
        "input_tokens_total": tokens,
        "output_tokens": 40,
        "reasoning_output_tokens": None,
        "timing_events": [
            {"event_type": "tool_result", "timestamp": f"2026-06-01T05:40:{start}Z"},
            {"event_type": "text", "timestamp": f"2026-06-01T05:40:{end}Z"},
        ],
        "tools": [],
    }


TRACELAB = json_lines(
    [
        round_of("claude:1", 0, "20.151", "31.647", 32272),
        round_of("codex:2", 0, "21.000", "22.500", 900),
        round_of("claude:1", 1, "50.938", "55.000", 35740),
        {**round_of("claude:1", 2, "56", "57", 5), "timing_events": []},
    ]
)
SHAREGPT = json.dumps(
    [
        {
            "id": "a",
            "conversations": [
                {"from": "human", "value": "x" * 40},
                {"from": "gpt", "value": "y" * 20},
                {"from": "human", "value": "z" * 9},
                {"from": "gpt", "value": "w" * 4},
            ],
        },
        {"id": "b", "conversations": [{"from": "human", "value": "no answer"}]},
    ]
)
AGENT_TEXT = json_lines(
    [
        {"timestamp": 1760428252010864, "input": "abcdefgh", "output": "xyz", "session_id": "32"},
        {"timestamp": 1760428251010864, "input": "abcd", "output": "xyz", "session_id": "32"},
    ]
)
CUSTOM = json_lines(
    [
        {"input_toks": 30, "output_toks": 4, "arrival_time_ns": 500000000, "tenant": "a"},
        {"input_toks": 31, "output_toks": 5, "arrival_time_ns": 750000000, "tenant": "b"},
    ]
)
CUSTOM_SESSIONS = json_lines(
    [
        {
            "session_id": "s",
            "arrival_time_ns": 1000000000,
            "sub_requests": [
                {"input_toks": 10, "output_toks": 2, "tool_duration_ns": 2000000000},
                {"input_toks": 20, "output_toks": 3, "tool_duration_ns": 0},
            ],
        },
        {"input_toks": 5, "output_toks": 1, "arrival_time_ns": 2000000000},
    ]
)
LENGTHS_JSONL = json_lines(
    [{"prompt_tokens": 12, "output_tokens": 3}, {"prompt_tokens": 9, "output_tokens": 30}]
)

# name -> (content, format that the reader finds)
SAMPLES: dict[str, tuple[str, str]] = {
    "azure-2023": (AZURE_2023, "azure"),
    "azure-2024": (AZURE_2024, "azure"),
    "azure-2025": (AZURE_2025, "azure"),
    "azure-offset": (AZURE_OFFSET, "azure-offset"),
    "burstgpt-6": (BURSTGPT_6, "burstgpt"),
    "burstgpt-8": (BURSTGPT_8, "burstgpt"),
    "vidur": (VIDUR, "vidur"),
    "lengths": (LENGTHS, "lengths"),
    "mooncake": (MOONCAKE, "mooncake"),
    "qwen": (QWEN, "qwen-bailian"),
    "agentic": (AGENTIC, "agentic"),
    "agentic-pretty": (AGENTIC_PRETTY, "agentic"),
    "tracelab": (TRACELAB, "tracelab"),
    "custom": (CUSTOM, "custom"),
    "custom-sessions": (CUSTOM_SESSIONS, "custom"),
    "custom-csv": (CUSTOM_CSV, "custom"),
    "custom-lengths": (LENGTHS_JSONL, "custom"),
}
TEXT_SAMPLES: dict[str, tuple[str, str]] = {
    "sharegpt": (SHAREGPT, "sharegpt"),
    "agent-text": (AGENT_TEXT, "agent-text"),
}


def write_sample(folder: Path, content: str | bytes, name: str = "sample") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
