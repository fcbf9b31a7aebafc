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
    # Learning rate
    "update": "갱신",
    "step": "단계",
    "training loss": "학습 손실",
    "validation loss": "검증 손실",
    "validation accuracy": "검증 정확도",
    "rate {rate} / L": "학습률 {rate} / L",
    "training loss, smoothed": "학습 손실 (평활화)",
    "diverged": "발산",
    "suggested by the range test": "학습률 범위 테스트의 제안",
    "loss, smoothed": "손실 (평활화)",
    "least smoothed loss": "평활화한 손실의 최솟값",
    "suggested: {rate}": "제안: {rate}",
    "learning rate, rising from update to update": "갱신마다 커지는 학습률",
    # Optimizers
    "local minimum": "지역 최솟값",
    "plateau": "고원",
    "saddle": "안장점",
    "narrow valley": "좁은 골짜기",
    "minimum": "최솟값",
    "loss above the minimum": "최솟값과의 손실 차이",
    # Schedules
    "training loss, mean": "학습 손실 (평균)",
    "validation loss: each network, and mean": "검증 손실: 신경망별 값과 평균",
}
