"""`tf_mwnet` as typed, cached, restartable components on Kubeflow Pipelines.

    ExampleGen -> StatisticsGen -> SchemaGen -> ExampleValidator -> BiasGen -> (Tuner) -> Trainer
               -> Evaluator, LabelAudit, InfraValidator -> Pusher

* `components` declares the inputs and outputs of each component; `work` does its work by calls into
  `tf_mwnet`; `tasks` runs that work in the component's process.
* `graph` connects the components. ``python -m pipelines.run`` runs the pipeline on this machine,
  ``python -m pipelines.compile`` compiles it for a cluster.
* `store` records which artifact was made from which; ``python -m pipelines.lineage`` prints it.
"""
