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
    # backprop
    "Forward: the loss is {before}, and {after} after one update": (
        "순전파: 손실은 {before}, 한 번 갱신한 뒤에는 {after}"
    ),
    "Backward: upstream \N{MULTIPLICATION SIGN} local = downstream, along every arrow": (
        "역전파: 화살표마다 상류 기울기 \N{MULTIPLICATION SIGN} 국소 미분 = 하류 기울기"
    ),
    # activations
    "value": "함숫값",
    "derivative": "도함수",
    "class {number}": "클래스 {number}",
    "{name}: {accuracy} right": "{name}: 정답률 {accuracy}",
    "each of {count} layers": "{count}개 층 각각",
    "first layer": "첫 번째 층",
    "layer": "층",
    "hidden layers": "은닉층 수",
    "gradient, relative to the last layer's": "기울기의 크기 (마지막 층 대비)",
    "updates": "갱신 횟수",
    "training error": "학습 오류율",
    "median of {count} networks, and their range": "신경망 {count}개의 중앙값과 범위",
    "mean and standard deviation of {count} networks": "신경망 {count}개의 평균과 표준편차",
    "learning rate {rate}": "학습률 {rate}",
    "biases from {bias}": "편향 초깃값 {bias}",
    "share of units that are off for every row": "모든 데이터에서 꺼진 뉴런의 비율",
    "validation accuracy": "검증 정확도",
}
