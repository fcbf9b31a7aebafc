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
    # batch-size and loss-surfaces
    "full batch: all {samples} samples": "전체 배치: 표본 {samples}개 모두",
    "stochastic: one sample at a time": "확률적: 표본 하나씩",
    "mini-batches of {size}": "미니배치: 표본 {size}개씩",
    # batch-size
    "updates": "갱신 횟수",
    "seconds of training": "학습 시간(초)",
    "loss of all training samples": "전체 학습 표본의 손실",
    "dots: where validation accuracy reaches {target}": "점: 검증 정확도 {target}에 이른 곳",
    "measured on batches": "배치에서 측정한 값",
    "batch size": "배치 크기",
    "variance of the gradient": "기울기의 분산",
    "suggested batch size: {size}": "권장 배치 크기: {size}",
    "gradient noise scale (samples)": "기울기 잡음 척도(표본 수)",
    # loss-surfaces
    "sample A": "표본 A",
    "sample B": "표본 B",
    "all samples": "전체 표본",
    "loss {before} to {after}": "손실 {before}에서 {after}로",
    "one update on sample A, from the minimum of all samples' loss": (
        "전체 손실의 최솟값에서 표본 A로 한 번 갱신"
    ),
    "before training": "학습 전",
    "after {epochs} epochs": "{epochs} 에포크 뒤",
    "mean change of the loss": "손실의 평균 변화",
    "class of the samples whose loss it is": "손실을 잰 표본의 클래스",
    "class of the sample of the update": "갱신에 쓴 표본의 클래스",
    "single samples": "표본 하나씩",
    "frequency": "주파수",
    "{descent}, momentum {momentum}": "{descent}, 모멘텀 {momentum}",
    "share of starts in the global minimum": "전역 최솟값에 이른 출발점의 비율",
}
