// Calls a server with gRPC's C++ library, its messages compiled from our .proto file: unary calls, both encodings, a
// stream, and errors by their codes.
#include <grpcpp/grpcpp.h>

#include <cmath>
#include <cstring>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "proto/inference/v2/open_inference.grpc.pb.h"

namespace {

using inference::GRPCInferenceService;
using inference::ModelInferRequest;
using inference::ModelInferResponse;

const std::vector<float> kReadingsFahrenheit = {-40.0F, 21.8F, 32.0F, 50.0F, 81.9F, 98.6F, 212.0F};
constexpr int kMany = 50;

void Check(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error(what);
}

void CheckCelsius(const std::vector<float>& given, const std::vector<float>& readings) {
  Check(given.size() == readings.size(), "count of the answers");
  for (size_t index = 0; index < given.size(); ++index) {
    const double expected = (static_cast<double>(readings[index]) - 32.0) * 5.0 / 9.0;
    Check(std::abs(given[index] - expected) < 1e-4, "value " + std::to_string(given[index]));
  }
}

ModelInferRequest Request(const std::vector<float>& readings, bool raw, const std::string& model = "linear") {
  ModelInferRequest request;
  request.set_model_name(model);
  auto* input = request.add_inputs();
  input->set_name("fahrenheit");
  input->set_datatype("FP32");
  input->add_shape(static_cast<int64_t>(readings.size()));
  input->add_shape(1);
  if (raw) {
    request.add_raw_input_contents(readings.data(), readings.size() * sizeof(float));
  } else {
    for (const float value : readings) input->mutable_contents()->add_fp32_contents(value);
  }
  return request;
}

std::vector<float> RawFloats(const std::string& raw) {
  std::vector<float> values(raw.size() / sizeof(float));
  std::memcpy(values.data(), raw.data(), raw.size());
  return values;
}

grpc::Status Infer(GRPCInferenceService::Stub* stub, const ModelInferRequest& request, ModelInferResponse* answer) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  return stub->ModelInfer(&context, request, answer);
}

void Unary(GRPCInferenceService::Stub* stub) {
  grpc::ClientContext context;
  inference::ServerReadyResponse ready;
  Check(stub->ServerReady(&context, {}, &ready).ok() && ready.ready(), "ready");

  ModelInferResponse raw;
  auto request = Request(kReadingsFahrenheit, true);
  request.set_id("17");
  Check(Infer(stub, request, &raw).ok(), "raw call");
  Check(raw.id() == "17" && raw.model_version() == "1", "head of the answer");
  CheckCelsius(RawFloats(raw.raw_output_contents(0)), kReadingsFahrenheit);

  ModelInferResponse typed;
  Check(Infer(stub, Request(kReadingsFahrenheit, false), &typed).ok(), "typed call");
  Check(typed.raw_output_contents_size() == 0, "typed answer to a typed request");
  const auto& values = typed.outputs(0).contents().fp32_contents();
  CheckCelsius({values.begin(), values.end()}, kReadingsFahrenheit);

  ModelInferResponse unused;
  Check(Infer(stub, Request({32.0F}, true, "absent"), &unused).error_code() == grpc::NOT_FOUND, "NOT_FOUND");
  Check(Infer(stub, Request({-500.0F}, true), &unused).error_code() == grpc::INVALID_ARGUMENT, "INVALID_ARGUMENT");
}

void Stream(GRPCInferenceService::Stub* stub) {
  grpc::ClientContext context;
  auto stream = stub->ModelStreamInfer(&context);
  for (int index = 0; index < kMany; ++index) {
    auto request = Request({static_cast<float>(index)}, true);
    request.set_id(std::to_string(index));
    Check(stream->Write(request), "write");
  }
  stream->WritesDone();
  inference::ModelStreamInferResponse answer;
  int seen = 0;
  for (; stream->Read(&answer); ++seen) {
    Check(answer.infer_response().id() == std::to_string(seen), "order of the stream");
    CheckCelsius(RawFloats(answer.infer_response().raw_output_contents(0)), {static_cast<float>(seen)});
  }
  Check(stream->Finish().ok() && seen == kMany, "end of the stream");
}

}  // namespace

int main(int, char** arguments) {
  auto stub = GRPCInferenceService::NewStub(grpc::CreateChannel(arguments[1], grpc::InsecureChannelCredentials()));
  try {
    Unary(stub.get());
    Stream(stub.get());
  } catch (const std::exception& error) {
    std::cerr << "not as it should be: " << error.what() << "\n";
    return 1;
  }
  std::cout << "C++: all as it should be\n";
  return 0;
}
