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
    # overfitting
    "hidden units": "은닉 유닛 수",
    "hidden units: {count}": "은닉 유닛 수: {count}",
    "underfitting": "과소적합",
    "overfitting": "과적합",
    "training, at the end": "학습, 마지막 에포크",
    "validation, at the end": "검증, 마지막 에포크",
    "validation, at the best epoch": "검증, 가장 좋은 에포크",
    "validation loss": "검증 손실",
    "validation accuracy": "검증 정확도",
    "none": "없음",
    "early stopping": "조기 종료",
    "dropout": "드롭아웃",
    "weight decay": "가중치 감쇠",
    "augmentation": "데이터 증강",
    "all together": "모두 함께",
    "test, once: {accuracy}": "테스트, 한 번: {accuracy}",
    # landscape
    "shallow, mini-batches": "얕은 신경망, 미니배치",
    "shallow, full batch": "얕은 신경망, 전체 배치",
    "deep, ReLU": "깊은 신경망, ReLU",
    "deep, sigmoid": "깊은 신경망, 시그모이드",
    "first direction": "첫째 방향",
    "second direction": "둘째 방향",
    "radius": "반지름",
    "rise of the loss": "손실의 증가",
    "rise at 0.5: {rise}": "반지름 0.5에서의 증가: {rise}",
}
