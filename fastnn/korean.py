"""The words of figures in Korean, by what they are in English."""

from __future__ import annotations

KOREAN = {
    # Everywhere
    "epoch": "에포크",
    "loss": "손실",
    "accuracy": "정확도",
    "training": "학습",
    "validation": "검증",
    "learning rate": "학습률",
    "best epoch: {epoch}": "가장 좋은 에포크: {epoch}",
    # The contact sheet of augmentation
    "image {number}": "이미지 {number}",
    "epoch {epoch}": "에포크 {epoch}",
    # backprop
    "Forward: the loss is {before}, and {after} after one update": (
        "순전파: 손실은 {before}, 한 번 갱신한 뒤에는 {after}"
    ),
    "Backward: upstream \N{MULTIPLICATION SIGN} local = downstream, along every arrow": (
        "역전파: 화살표마다 상류 기울기 \N{MULTIPLICATION SIGN} 국소 미분 = 하류 기울기"
    ),
}
