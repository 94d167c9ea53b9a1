#include "expert_operations.h"

#include <cmath>
#include <numeric>

#include "step_matrix.h"

namespace nextword {
namespace {

// Returns the places of the largest values, from the largest on; of equal ones the first.
std::vector<int64_t> Largest(const std::vector<float>& values, int64_t count) {
  std::vector<int64_t> places(values.size());
  std::iota(places.begin(), places.end(), 0);
  std::partial_sort(places.begin(), places.begin() + count, places.end(),
                    [&](int64_t one, int64_t other) {
                      return values[one] != values[other] ? values[one] > values[other]
                                                          : one < other;
                    });
  places.resize(count);
  return places;
}

class Route : public Operation {
 public:
  Route(Integers& in, const float* factors)
      : out_(in.Next()), logits_(in.Next()), experts_(in.Next()), chosen_(in.Next()),
        is_sigmoid_(in.Next()), is_normalized_(in.Next()), groups_(in.Next()),
        chosen_groups_(in.Next()), counted_(in.Next()), bias_at_(in.Next()), scale_(factors[0]) {}

  bool Prepare(Memory& memory) override {
    memory_ = &memory;
    if (experts_ < 1 || groups_ < 1 || experts_ % groups_ || chosen_groups_ < 1 ||
        chosen_groups_ > groups_ || counted_ < 1 || counted_ > experts_ / groups_ || chosen_ < 1 ||
        chosen_ > experts_ / groups_ * chosen_groups_ || !memory.IsRegister(out_, 2 * chosen_) ||
        !memory.IsRegister(logits_, experts_) ||
        (bias_at_ != -1 && !memory.IsFloats(bias_at_, experts_))) {
      return false;
    }
    bias_ = memory.Floats(bias_at_);
    return true;
  }
  int64_t count() const override { return memory_->tokens; }
  int64_t cost() const override { return 16 * experts_; }
  void Run(int64_t first, int64_t last) const override {
    for (int64_t token = first; token < last; ++token) RunToken(token);
  }

 private:
  void RunToken(int64_t token) const {
    const std::vector<float> scores = Scores(memory_->row(logits_, token));
    std::vector<float> preferences = scores;
    for (int64_t e = 0; bias_ != nullptr && e < experts_; ++e) preferences[e] += bias_[e];
    if (groups_ > 1) KeepBestGroups(&preferences);
    float* numbers = memory_->row(out_, token);
    float* weights = numbers + chosen_;
    float total = 0;
    const std::vector<int64_t> best = Largest(preferences, chosen_);
    for (int64_t j = 0; j < chosen_; ++j) {
      numbers[j] = static_cast<float>(best[j]);
      weights[j] = scores[best[j]];
      total += weights[j];
    }
    const float divisor = is_normalized_ ? total + 1e-20f : 1;
    for (int64_t j = 0; j < chosen_; ++j) weights[j] = weights[j] / divisor * scale_;
  }

  std::vector<float> Scores(const float* logits) const {
    std::vector<float> scores(logits, logits + experts_);
    if (is_sigmoid_) {
      for (float& score : scores) score = 1 / (1 + std::exp(-score));
      return scores;
    }
    const float largest = *std::max_element(scores.begin(), scores.end());
    for (float& score : scores) score = std::exp(score - largest);
    const float total = std::accumulate(scores.begin(), scores.end(), 0.0f);
    for (float& score : scores) score /= total;
    return scores;
  }

  void KeepBestGroups(std::vector<float>* preferences) const {
    const int64_t size = experts_ / groups_;
    std::vector<float> sums(groups_);
    for (int64_t group = 0; group < groups_; ++group) {
      const auto begin = preferences->begin() + group * size;
      std::vector<float> own(begin, begin + size);
      for (const int64_t place : Largest(own, counted_)) sums[group] += own[place];
    }
    std::vector<float> kept(experts_, -1e30f);
    for (const int64_t group : Largest(sums, chosen_groups_)) {
      const auto begin = preferences->begin() + group * size;
      std::copy(begin, begin + size, kept.begin() + group * size);
    }
    *preferences = kept;
  }

  const int64_t out_, logits_, experts_, chosen_, is_sigmoid_, is_normalized_, groups_;
  const int64_t chosen_groups_, counted_, bias_at_;
  const float scale_;
  Memory* memory_ = nullptr;
  const float* bias_ = nullptr;
};

class ExpertLinear : public Operation {
 public:
  ExpertLinear(Integers& in, const float*)
      : in_(in.Next()), choice_(in.Next()), experts_(in.Next()), chosen_(in.Next()),
        inputs_(in.Next()), is_own_(in.Next()) {
    while (!in.is_at_end() && !in.is_short()) parts_.emplace_back(in);
  }

  bool Prepare(Memory& memory) override {
    memory_ = &memory;
    if (experts_ < 1 || chosen_ < 1 || inputs_ < 1 || !memory.IsRegister(choice_, 2 * chosen_) ||
        !memory.IsRegister(in_, is_own_ ? chosen_ * inputs_ : inputs_)) {
      return false;
    }
    for (Part& part : parts_) {
      if (part.outputs < 1 || !memory.IsRegister(part.out, chosen_ * part.outputs) ||
          !part.matrix.Prepare(memory, experts_ * part.outputs, inputs_) ||
          (part.matrix.is_packed() && part.outputs % kTile) ||
          (part.bias_at != -1 && !memory.IsFloats(part.bias_at, experts_ * part.outputs))) {
        return false;
      }
      part.bias = memory.Floats(part.bias_at);
      part.first_tile = tiles_;
      tiles_ += (part.outputs + kTile - 1) / kTile;
      has_packed_ = has_packed_ || part.matrix.is_packed();
    }
    return true;
  }
  int64_t count() const override { return memory_->tokens * chosen_ * tiles_; }
  int64_t cost() const override { return kTile * inputs_; }
  void Run(int64_t first, int64_t last) const override {
    while (first < last) {
      // The tiles of one of a token's experts.
      const int64_t pair = first / tiles_, token = pair / chosen_, slot = pair % chosen_;
      const int64_t end = std::min(last, (pair + 1) * tiles_);
      const float* in = memory_->row(in_, token) + (is_own_ ? slot * inputs_ : 0);
      // Every thread for itself: it takes a few hundredths of the time of the products.
      QuantizedRows* quantized = has_packed_ ? Quantized(in) : nullptr;
      for (const Part& part : parts_) {
        const int64_t tiles = (part.outputs + kTile - 1) / kTile;
        const int64_t start = pair * tiles_ + part.first_tile;
        const int64_t from = std::max<int64_t>(first - start, 0);
        const int64_t to = std::min(end - start, tiles);
        if (from >= to) continue;
        RunPart(part, token, slot, in, quantized, from * kTile,
                std::min(to * kTile, part.outputs));
      }
      first = end;
    }
  }

 private:
  struct Part {
    explicit Part(Integers& in)
        : out(in.Next()), outputs(in.Next()), matrix(in), bias_at(in.Next()) {}

    int64_t out, outputs;
    StepMatrix matrix;
    int64_t bias_at;
    int64_t first_tile = 0;
    const float* bias = nullptr;
  };

  QuantizedRows* Quantized(const float* in) const {
    thread_local std::map<int64_t, std::unique_ptr<QuantizedRows>> kept;
    auto& rows = kept[inputs_];
    if (rows == nullptr) rows = std::make_unique<QuantizedRows>(1, inputs_);
    rows->Quantize(0, in);
    return rows.get();
  }

  void RunPart(const Part& part, int64_t token, int64_t slot, const float* in,
               const QuantizedRows* quantized, int64_t first, int64_t last) const {
    const auto expert = static_cast<int64_t>(memory_->row(choice_, token)[slot]);
    const int64_t start = expert * part.outputs;
    float* out = memory_->row(part.out, token) + slot * part.outputs;
    part.matrix.From(start).Multiply(in, quantized, 1, first, last, out, part.outputs);
    if (part.bias == nullptr) return;
    for (int64_t o = first; o < last; ++o) out[o] += part.bias[start + o];
  }

  const int64_t in_, choice_, experts_, chosen_, inputs_, is_own_;
  std::vector<Part> parts_;
  int64_t tiles_ = 0;
  bool has_packed_ = false;
  Memory* memory_ = nullptr;
};

class Mix : public Operation {
 public:
  Mix(Integers& in, const float*)
      : out_(in.Next()), in_(in.Next()), choice_(in.Next()), chosen_(in.Next()),
        width_(in.Next()) {}

  bool Prepare(Memory& memory) override {
    memory_ = &memory;
    return chosen_ > 0 && width_ > 0 && memory.IsRegister(out_, width_) &&
           memory.IsRegister(in_, chosen_ * width_) && memory.IsRegister(choice_, 2 * chosen_);
  }
  int64_t count() const override { return memory_->tokens; }
  int64_t cost() const override { return chosen_ * width_ / 4; }
  void Run(int64_t first, int64_t last) const override {
    for (int64_t token = first; token < last; ++token) {
      const float* weights = memory_->row(choice_, token) + chosen_;
      const float* in = memory_->row(in_, token);
      float* out = memory_->row(out_, token);
      for (int64_t i = 0; i < width_; ++i) out[i] = weights[0] * in[i];
      for (int64_t j = 1; j < chosen_; ++j) {
        in += width_;
        for (int64_t i = 0; i < width_; ++i) out[i] += weights[j] * in[i];
      }
    }
  }

 private:
  const int64_t out_, in_, choice_, chosen_, width_;
  Memory* memory_ = nullptr;
};

}  // namespace

std::unique_ptr<Operation> MakeRoute(Integers& integers, const float* factors) {
  return std::make_unique<Route>(integers, factors);
}

std::unique_ptr<Operation> MakeExpertLinear(Integers& integers, const float* factors) {
  return std::make_unique<ExpertLinear>(integers, factors);
}

std::unique_ptr<Operation> MakeMix(Integers& integers, const float* factors) {
  return std::make_unique<Mix>(integers, factors);
}

}  // namespace nextword
