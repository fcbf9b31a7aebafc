"""The words of figures in Korean, by what they are in English."""

from __future__ import annotations

KOREAN = {
    # everywhere
    "epoch": "에포크",
    "loss": "손실",
    "accuracy": "정확도",
    "training": "학습",
    "validation": "검증",
    "validation loss": "검증 손실",
    "validation accuracy": "검증 정확도",
    "updates": "갱신 횟수",
    "learning rate": "학습률",
    "best epoch: {epoch}": "가장 좋은 에포크: {epoch}",
    # the contact sheet of augmentation
    "image {number}": "이미지 {number}",
    "epoch {epoch}": "에포크 {epoch}",
    # backprop
    "Forward: the loss is {before}, and {after} after one update": (
        "순전파: 손실은 {before}, 한 번 갱신한 뒤에는 {after}"
    ),
    "Backward: along every arrow, upstream times local is downstream": (
        "역전파: 화살표마다 상류 기울기와 국소 미분의 곱이 하류 기울기"
    ),
    # learning-rate
    "update": "갱신",
    "step": "스텝",
    "training loss": "학습 손실",
    "rate {rate} / L": "학습률 {rate} / L",
    "training loss, smoothed": "학습 손실(평활화)",
    "{rate}: diverged at update {update}": "{rate}: {update}번째 갱신에서 발산",
    "by the range test: {rate}": "범위 테스트: {rate}",
    "loss, smoothed": "손실(평활화)",
    "least smoothed loss": "평활화한 손실의 최솟값",
    "suggested: {rate}": "권장: {rate}",
    "learning rate, rising from update to update": "갱신마다 커지는 학습률",
    # optimizers
    "local minimum": "지역 최솟값",
    "plateau": "고원",
    "saddle": "안장점",
    "narrow valley": "좁은 골짜기",
    "global minimum": "전역 최솟값",
    "loss above the minimum": "손실과 최솟값의 차이",
    # schedules
    "training loss, mean": "학습 손실(평균)",
    "validation loss: each network, and mean": "검증 손실: 신경망별 값과 평균",
    # activations
    "value": "함숫값",
    "derivative": "도함수",
    "class {number}": "클래스 {number}",
    "{name}: {accuracy} right": "{name}: 정답률 {accuracy}",
    "each of {count} layers": "{count}개 층 각각",
    "first layer": "첫 번째 층",
    "layer": "층",
    "hidden layers": "은닉층 수",
    "gradient, relative to the last layer's": "기울기의 크기(마지막 층 대비)",
    "training error": "학습 오류율",
    "median of {count} networks, and their range": "신경망 {count}개의 중앙값과 범위",
    "mean and standard deviation of {count} networks": "신경망 {count}개의 평균과 표준편차",
    "learning rate {rate}": "학습률 {rate}",
    "biases from {bias}": "편향 초깃값 {bias}",
    "share of units that are off for every row": "모든 데이터에서 꺼진 뉴런의 비율",
    # batch-size and loss-surfaces
    "full batch: all {samples} samples": "전체 배치: 샘플 {samples}개 모두",
    "stochastic: one sample at a time": "확률적: 샘플 하나씩",
    "mini-batches of {size}": "미니배치: 샘플 {size}개씩",
    # batch-size
    "seconds of training": "학습 시간(초)",
    "loss of all training samples": "전체 학습 샘플의 손실",
    "dots: where validation accuracy reaches {target}": "점: 검증 정확도 {target}에 이른 곳",
    "measured on batches": "배치에서 측정한 값",
    "batch size": "배치 크기",
    "variance of the gradient": "기울기의 분산",
    "suggested batch size: {size}": "권장 배치 크기: {size}",
    "gradient noise scale (samples)": "기울기 잡음 척도(샘플 수)",
    # loss-surfaces
    "sample A": "샘플 A",
    "sample B": "샘플 B",
    "all samples": "전체 샘플",
    "loss {before} to {after}": "손실 {before} → {after}",
    "one update on sample A, from the minimum of all samples' loss": (
        "전체 손실의 최솟값에서 샘플 A로 한 번 갱신"
    ),
    "before training": "학습 전",
    "after {epochs} epochs": "{epochs} 에포크 뒤",
    "mean change of the loss": "손실의 평균 변화",
    "class of the samples whose loss it is": "손실을 잰 샘플의 클래스",
    "class of the sample of the update": "갱신에 쓴 샘플의 클래스",
    "single samples": "샘플 하나하나",
    "frequency": "주파수",
    "{descent}, momentum {momentum}": "{descent}, 모멘텀 {momentum}",
    "share of starts in the global minimum": "전역 최솟값에 이른 출발점의 비율",
    # overfitting
    "hidden units": "은닉 뉴런 수",
    "hidden units: {count}": "은닉 뉴런 수: {count}",
    "underfitting": "과소적합",
    "overfitting": "과적합",
    "training, at the end": "학습, 마지막 에포크",
    "validation, at the end": "검증, 마지막 에포크",
    "validation, at the best epoch": "검증, 가장 좋은 에포크",
    "none": "없음",
    "early stopping": "조기 종료",
    "dropout": "드롭아웃",
    "weight decay": "가중치 감쇠",
    "augmentation": "데이터 증강",
    "all together": "모두 함께",
    "test, once: {accuracy}": "테스트(한 번만): {accuracy}",
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
